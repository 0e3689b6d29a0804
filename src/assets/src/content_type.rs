//! The content type with which an asset is answered: the one that wrangler finds by the extension of its name.

/// The extensions for which wrangler has another type than `mime_guess`, among those of files that websites have; none: no type.
const OTHERS: [(&str, Option<&str>); 54] = [
    ("asc", Some("application/pgp-keys")),
    ("c", Some("text/x-c")),
    ("cer", Some("application/pkix-cert")),
    ("cjs", Some("application/node")),
    ("cmd", None),
    ("cpp", Some("text/x-c")),
    ("cur", None),
    ("dat", None),
    ("dds", Some("image/vnd.ms-dds")),
    ("exr", Some("image/aces")),
    ("fbx", Some("application/vnd.autodesk.fbx")),
    ("flac", Some("audio/x-flac")),
    ("h", Some("text/x-c")),
    ("hdr", None),
    ("ico", Some("image/vnd.microsoft.icon")),
    ("ipynb", Some("application/x-ipynb+json")),
    ("java", Some("text/x-java-source")),
    ("js", Some("text/javascript")),
    ("jsx", Some("text/jsx")),
    ("key", Some("application/vnd.apple.keynote")),
    ("ktx2", Some("image/ktx2")),
    ("lottie", Some("application/zip+dotlottie")),
    ("m3u8", Some("application/vnd.apple.mpegurl")),
    ("m4a", Some("audio/mp4")),
    ("manifest", Some("text/cache-manifest")),
    ("map", Some("application/json")),
    ("md", Some("text/markdown")),
    ("mdx", Some("text/mdx")),
    ("mid", Some("audio/midi")),
    ("midi", Some("audio/midi")),
    ("mjs", Some("text/javascript")),
    ("mtl", Some("model/mtl")),
    ("mts", Some("video/mp2t")),
    ("obj", Some("model/obj")),
    ("otf", Some("font/otf")),
    ("owl", Some("application/rdf+xml")),
    ("psd", Some("image/vnd.adobe.photoshop")),
    ("py", None),
    ("rar", Some("application/vnd.rar")),
    ("rpm", Some("application/x-redhat-package-manager")),
    ("rs", Some("application/rls-services+xml")),
    ("sql", Some("application/sql")),
    ("stl", Some("model/stl")),
    ("tgz", None),
    ("toml", Some("application/toml")),
    ("ts", Some("video/mp2t")),
    ("usdz", Some("model/vnd.usdz+zip")),
    ("wasm", Some("application/wasm")),
    ("woff", Some("font/woff")),
    ("xml", Some("application/xml")),
    ("xsl", Some("application/xml")),
    ("xslt", Some("application/xslt+xml")),
    ("yaml", Some("text/yaml")),
    ("yml", Some("text/yaml")),
];

/// Returns the content type of a file by its path; none if its extension isn't known.
pub fn content_type(path: &str) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (stem, extension) = name.rsplit_once('.')?;
    if stem.is_empty() {
        return None;
    }
    let extension = extension.to_lowercase();
    let kind = match OTHERS.binary_search_by_key(&extension.as_str(), |(extension, _)| extension) {
        Ok(at) => OTHERS[at].1?,
        Err(_) => mime_guess::from_ext(&extension).first_raw()?,
    };
    // Texts are in UTF-8, as far as anybody knows.
    let is_bare_text = kind.starts_with("text/") && !kind.contains("charset");
    Some(if is_bare_text { format!("{kind}; charset=utf-8") } else { kind.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_the_extension() {
        assert!(OTHERS.is_sorted_by_key(|(extension, _)| *extension));
        let cases = [
            ("/index.html", Some("text/html; charset=utf-8")),
            ("/a/app.JS", Some("text/javascript; charset=utf-8")),
            ("/logo.svg", Some("image/svg+xml")),
            ("/font.woff2", Some("font/woff2")),
            ("/feed.xml", Some("application/xml")),
            ("/x.dat", None),
            ("/.html", None),
            ("/LICENSE", None),
        ];
        for (path, expected) in cases {
            assert_eq!(content_type(path).as_deref(), expected, "{path}");
        }
    }
}
