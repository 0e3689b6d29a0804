//! The hash by which an asset is uploaded once: that of wrangler, so that what either uploads, the other needn't.

use data_encoding::BASE64;

/// The length of a hash, in hexadecimal digits.
pub const HASH_LENGTH: usize = 32;
/// The bytes that are encoded at once: a multiple of 3, so that the pieces of base64 are those of the whole.
const PIECE: usize = 48 << 10;

/// Returns the hash of an asset: the first digits of the BLAKE3 hash of its bytes in base64, and the extension of its name.
pub fn hash(bytes: &[u8], path: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut encoded = String::with_capacity(BASE64.encode_len(PIECE.min(bytes.len())));
    for piece in bytes.chunks(PIECE) {
        encoded.clear();
        BASE64.encode_append(piece, &mut encoded);
        hasher.update(encoded.as_bytes());
    }
    hasher.update(extension(path).as_bytes());
    hasher.finalize().to_hex()[..HASH_LENGTH].to_owned()
}

/// Returns the extension of a file's name, as Node.js finds it.
fn extension(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => extension,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_that_of_the_name() {
        let cases = [("/a/b.html", "html"), ("/a.b/c", ""), ("/.env", ""), ("/a.", ""), ("/x.tar.GZ", "GZ"), ("x", "")];
        for (path, expected) in cases {
            assert_eq!(extension(path), expected, "{path}");
        }
    }

    #[test]
    fn hashes_are_those_of_wrangler() {
        // Computed by the hash function of wrangler 4.164.0.
        assert_eq!(hash(b"", "/empty"), "af1349b9f5f9a1a6a0404dea36dcc949");
        assert_ne!(hash(b"x", "/x.txt"), hash(b"x", "/x.html"));
        let long: Vec<u8> = (0..3 * PIECE + 7).map(|at| (at % 251) as u8).collect();
        let whole = blake3::hash((BASE64.encode(&long) + "bin").as_bytes()).to_hex();
        assert_eq!(hash(&long, "/long.bin"), whole[..HASH_LENGTH]);
    }
}
