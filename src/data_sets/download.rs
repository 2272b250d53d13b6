//! Resumable downloads over HTTP.
//!
//! A partial download is kept in `<file>.part`, with its URL and version in `<file>.part.json`. If the server cannot
//! resume, or now has another version, the download starts over; the checksum verifies the result ([`super::digest`]).

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use ureq::{
    Agent, Body, Timeout,
    http::{HeaderMap, Response, StatusCode},
};

/// How often a download that makes progress is resumed at one URL.
const TRIES: u32 = 20;

/// Called as bytes arrive, with the number received and the total.
pub type Progress<'a> = dyn FnMut(u64, Option<u64>) + 'a;

/// An HTTP client for downloads.
pub struct Client {
    agent: Agent,
    /// Pause before resuming after a broken connection.
    pause: Duration,
}

/// A file to download.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its URLs, tried in order.
    pub urls: &'a [String],
    /// Its length, if known.
    pub bytes: Option<u64>,
    /// Whether a checksum will verify the result: then one URL may resume where another broke off.
    pub checked: bool,
}

/// No URL delivered the file.
#[derive(Clone, Debug)]
pub struct Unavailable {
    /// Every URL, and what went wrong there.
    pub tried: Vec<(String, String)>,
    /// Whether none could be reached.
    pub offline: bool,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let tried: Vec<String> = self.tried.iter().map(|(url, why)| format!("{url}: {why}")).collect();
        write!(f, "{}{}", if self.offline { "no network: " } else { "" }, tried.join(", "))
    }
}

impl std::error::Error for Unavailable {}

/// Why a URL did not deliver the file.
enum Trouble {
    /// The server or connection failed. `reached`: whether it answered.
    There { why: String, reached: bool },
    /// This machine failed.
    Here(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Trouble::Here(error)
    }
}

impl Trouble {
    fn there(why: impl Into<String>) -> Self {
        Trouble::There { why: why.into(), reached: true }
    }
}

/// The URL and version of a partial download.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Version {
    url: String,
    /// The server's identifier of this version: a strong ETag, or a date.
    validator: Option<String>,
    /// The length of the whole file.
    total: Option<u64>,
}

/// A partial download.
struct Part {
    path: PathBuf,
    version: Version,
    length: u64,
}

/// The path of the partial download of a file.
pub fn part_of(to: &Path) -> PathBuf {
    suffixed(to, ".part")
}

/// The path with a suffix appended to its file name.
pub fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Default for Client {
    fn default() -> Self {
        Self::new(Duration::from_secs(60), Duration::from_secs(2))
    }
}

impl Client {
    /// Waits `patience` for a response, and `pause` before resuming after a broken connection.
    fn new(patience: Duration, pause: Duration) -> Self {
        let config = Agent::config_builder()
            .timeout_resolve(Some(patience / 2))
            .timeout_connect(Some(patience / 2))
            .timeout_recv_response(Some(patience))
            // For one read: how long a whole file takes is not known.
            .timeout_per_read(Some(patience))
            .http_status_as_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("caco/", env!("CARGO_PKG_VERSION")));
        Client { agent: config.build().into(), pause }
    }

    /// Downloads a file to [`part_of`] the path. The error is [`Unavailable`] unless this machine failed.
    pub fn download(&self, wanted: &Wanted, to: &Path, progress: &mut Progress) -> Result<()> {
        let mut part = Part::open(&part_of(to))?;
        let (mut tried, mut offline) = (vec![], true);
        for url in wanted.urls {
            match self.at_address(url, wanted, &mut part, progress) {
                Ok(()) => return part.close(),
                Err(Trouble::Here(error)) => return Err(error),
                Err(Trouble::There { why, reached }) => {
                    offline &= !reached;
                    tried.push((url.clone(), why));
                }
            }
        }
        offline &= !tried.is_empty();
        Err(Unavailable { tried, offline }.into())
    }

    /// Downloads from one URL, resuming as long as there is progress.
    fn at_address(&self, url: &str, wanted: &Wanted, part: &mut Part, progress: &mut Progress) -> Result<(), Trouble> {
        for _ in 1..TRIES {
            let before = part.length;
            match self.resume(url, wanted, part, progress) {
                Err(Trouble::There { .. }) if part.length > before => thread::sleep(self.pause),
                done => return done,
            }
        }
        self.resume(url, wanted, part, progress)
    }

    /// Requests the missing bytes and appends them. Existing bytes are kept until replacements are about to arrive.
    fn resume(&self, url: &str, wanted: &Wanted, part: &mut Part, progress: &mut Progress) -> Result<(), Trouble> {
        let mut resumes = part.length > 0 && part.fits(url, wanted);
        if resumes && wanted.bytes == Some(part.length) {
            return Ok(());
        }
        let mut response = self.ask(url, part, resumes)?;
        if resumes && part.is_refused_by(url, &response) {
            resumes = false;
            response = self.ask(url, part, false)?;
        }
        resumes &= response.status() == StatusCode::PARTIAL_CONTENT;
        if !resumes && response.status() != StatusCode::OK {
            return Err(Trouble::there(format!("the server answers {}", response.status())));
        }
        let version = version(url, &response, if resumes { part.length } else { 0 });
        if let (Some(there), Some(bytes)) = (version.total, wanted.bytes)
            && there != bytes
        {
            return Err(Trouble::there(format!("the file there has {there} bytes, {bytes} are expected")));
        }
        if !resumes {
            part.clear()?;
        }
        part.version = version;
        part.take(response.body_mut().as_reader(), wanted.bytes, progress)
    }

    fn ask(&self, url: &str, part: &Part, resumes: bool) -> Result<Response<Body>, Trouble> {
        let mut request = self.agent.get(url);
        if resumes {
            request = request.header("Range", format!("bytes={}-", part.length));
            // With it, a server that now has another version sends that version in full.
            if let Some(validator) = part.version.validator.as_ref().filter(|_| part.version.url == url) {
                request = request.header("If-Range", validator);
            }
        }
        request.call().map_err(|error| Trouble::There { why: error.to_string(), reached: reached(&error) })
    }
}

/// Whether the server was reached despite this error.
fn reached(error: &ureq::Error) -> bool {
    use ErrorKind::*;
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) => false,
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => false,
        // A failed name lookup has no error kind of its own; errors of an established connection do.
        ureq::Error::Io(e) => {
            matches!(e.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof | InvalidData)
        }
        _ => true,
    }
}

/// The version that a server sends, of which `have` bytes have been received.
fn version(url: &str, response: &Response<Body>, have: u64) -> Version {
    let headers = response.headers();
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    // A weak ETag identifies equivalent files, not identical ones.
    let strong = text("ETag").filter(|tag| tag.starts_with('"'));
    let total = match response.status() {
        StatusCode::PARTIAL_CONTENT => range(headers).and_then(|(_, total)| total),
        _ => response.body().content_length().map(|rest| have + rest),
    };
    Version { url: url.into(), validator: strong.or_else(|| text("Last-Modified")), total }
}

/// The start of the range that a server sends, and the length of the whole file: `bytes 100-199/200`.
fn range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get("Content-Range")?.to_str().ok()?.trim().strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

impl Part {
    fn open(path: &Path) -> Result<Self> {
        let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let noted = fs::read(suffixed(path, ".json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(Part { path: path.into(), version: noted.unwrap_or_default(), length })
    }

    /// Whether the download can be resumed from this URL.
    fn fits(&self, url: &str, wanted: &Wanted) -> bool {
        let short = wanted.bytes.is_none_or(|bytes| self.length <= bytes);
        short && (wanted.checked || (self.version.url == url && self.version.validator.is_some()))
    }

    /// Whether the server cannot resume it: it has fewer bytes, another version, or sends a different range than
    /// requested.
    fn is_refused_by(&self, url: &str, response: &Response<Body>) -> bool {
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => true,
            StatusCode::PARTIAL_CONTENT => !self.resumes_with(url, response),
            _ => false,
        }
    }

    fn resumes_with(&self, url: &str, response: &Response<Body>) -> bool {
        let Some((start, total)) = range(response.headers()) else { return false };
        let (here, there) = (&self.version.validator, version(url, response, self.length).validator);
        // Two servers may identify the same version differently.
        let alike = self.version.url != url || here.is_none() || there.is_none() || *here == there;
        start == self.length
            && (total.is_none() || self.version.total.is_none() || total == self.version.total)
            && alike
    }

    fn clear(&mut self) -> Result<()> {
        for path in [&self.path, &suffixed(&self.path, ".json")] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        (self.length, self.version) = (0, Version::default());
        Ok(())
    }

    /// Appends the body to the part, up to `most` bytes in total.
    fn take(&mut self, mut body: impl Read, most: Option<u64>, progress: &mut Progress) -> Result<(), Trouble> {
        let cannot = || format!("cannot write {}", self.path.display());
        let mut file = File::options().create(true).append(true).open(&self.path).with_context(cannot)?;
        let noted = serde_json::to_vec(&self.version).expect("strings and numbers can be written");
        fs::write(suffixed(&self.path, ".json"), noted).with_context(cannot)?;
        let (total, mut buffer) = (self.version.total, vec![0; 1 << 17]);
        progress(self.length, total);
        loop {
            let count = match body.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(self.length, total, Some(error))),
            };
            if count == 0 {
                break;
            }
            file.write_all(&buffer[..count]).with_context(|| format!("cannot write {}", self.path.display()))?;
            self.length += count as u64;
            progress(self.length, total);
            if let Some(most) = most.filter(|most| self.length > *most) {
                self.clear()?;
                return Err(Trouble::there(format!("it sends more than the expected {most} bytes")));
            }
        }
        match total.or(most) {
            Some(all) if self.length != all => Err(broken(self.length, Some(all), None)),
            _ => Ok(()),
        }
    }

    /// Completes the download.
    fn close(self) -> Result<()> {
        let synced = File::open(&self.path).and_then(|file| file.sync_all());
        synced.with_context(|| format!("cannot write {}", self.path.display()))?;
        match fs::remove_file(suffixed(&self.path, ".json")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn broken(length: u64, total: Option<u64>, error: Option<io::Error>) -> Trouble {
    let of = total.map_or(String::new(), |total| format!(" of {total}"));
    let why = error.map_or(String::new(), |error| format!(": {error}"));
    Trouble::there(format!("the connection broke off after {length}{of} bytes{why}"))
}

#[cfg(test)]
mod tests;
