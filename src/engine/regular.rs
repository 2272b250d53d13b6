//! Opens only regular files. A stage may leave a pipe where a file is expected, and opening a pipe waits until somebody
//! writes to it, which would block the run and every collection of the store.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Opens a regular file for reading. Never waits for another process.
///
/// # Errors
/// Where it is not there, or is a pipe, a socket, a device or a folder.
pub fn open(path: &Path) -> io::Result<File> {
    // Of a regular file, no read depends on the flag.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        // What opening a socket says.
        Some(libc::ENXIO) => special(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(special()) }
}

/// The bytes of a regular file.
///
/// # Errors
/// As [`open`], or where it cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn special() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::CString, os::unix::ffi::OsStrExt, os::unix::net::UnixListener};

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        assert_eq!(read(&at("file")).unwrap(), b"text");
        let pipe = CString::new(at("pipe").as_os_str().as_bytes()).unwrap();
        // SAFETY: the text lives for the length of the call.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for special in [at("pipe"), at("socket"), folder.path().into(), "/dev/zero".into()] {
            assert_eq!(read(&special).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{}", special.display());
        }
        assert_eq!(read(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
