//! Files as an archive: the same bytes wherever and whenever it is made. Knows nothing of what is in the files.

use std::io::{Cursor, Write as _};

use flate2::{Compression, GzBuilder};

use super::Files;

/// The format of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// A tar archive, gzipped.
    TarGz,
    /// A zip archive.
    Zip,
}

impl Archive {
    /// Packs files into an archive, below one folder.
    pub fn pack(self, root: &str, files: &Files) -> std::io::Result<Vec<u8>> {
        match self {
            Archive::TarGz => tar_gz(root, files),
            Archive::Zip => zip(root, files),
        }
    }
}

/// Packs files below one folder into a gzipped tar archive: sorted, without times, owners or a name.
fn tar_gz(root: &str, files: &Files) -> std::io::Result<Vec<u8>> {
    let mut archive =
        tar::Builder::new(GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best()));
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, format!("{root}/{path}"), bytes.as_slice())?;
    }
    archive.into_inner()?.finish()
}

/// Packs the same into a zip archive.
fn zip(root: &str, files: &Files) -> std::io::Result<Vec<u8>> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644)
        .system(zip::System::Unix);
    for (path, bytes) in files {
        archive.start_file(format!("{root}/{path}"), options).map_err(std::io::Error::other)?;
        archive.write_all(bytes)?;
    }
    Ok(archive.finish().map_err(std::io::Error::other)?.into_inner())
}
