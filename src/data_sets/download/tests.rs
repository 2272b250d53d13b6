//! Downloads from a local server with scripted answers.

use super::*;
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// How a server answers a request.
#[derive(Clone, Debug)]
enum Answer {
    /// Correctly, including ranges.
    Well,
    /// With the whole file, whatever was requested.
    Whole,
    /// With this many bytes of the answer, then it hangs up.
    Cut(usize),
    /// Stops sending after this many bytes, but keeps the connection open.
    Silence(usize),
    /// With this status and no content.
    Status(&'static str),
    /// With a range that starts elsewhere than requested.
    Astray,
    /// Correctly, but without a length.
    Endless,
    /// With a redirect to this path.
    Elsewhere(&'static str),
}
use Answer::*;

/// A server for one file, on its own port.
struct Server {
    port: u16,
    file: Arc<Mutex<(Vec<u8>, Option<&'static str>)>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// The lines of each request that matter: path, Range, If-Range.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(content: &[u8], tag: Option<&'static str>, answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            port: listener.local_addr().unwrap().port(),
            file: Arc::new(Mutex::new((content.to_vec(), tag))),
            answers: Arc::new(Mutex::new(answers.iter().cloned().collect())),
            asked: Arc::default(),
        };
        let (file, answers, asked) = (server.file.clone(), server.answers.clone(), server.asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = answers.lock().unwrap().pop_front().unwrap_or(Well);
                let (file, asked) = (file.lock().unwrap().clone(), asked.clone());
                thread::spawn(move || serve(stream, answer, &file, &asked));
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/set.tar", self.port)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, answer: Answer, file: &(Vec<u8>, Option<&str>), asked: &Mutex<Vec<String>>) {
    let (mut line, mut head) = (String::new(), vec![]);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
        head.push(std::mem::take(&mut line).trim().to_owned());
    }
    let header = |name: &str| {
        head.iter().find_map(|l| l.to_lowercase().starts_with(name).then(|| l[name.len()..].trim().to_owned()))
    };
    let (range, guard) = (header("range:"), header("if-range:"));
    let path = head.first().and_then(|l| l.split(' ').nth(1)).unwrap_or_default().to_owned();
    let words = [Some(path), range.clone(), guard.clone()];
    asked.lock().unwrap().push(words.into_iter().flatten().collect::<Vec<_>>().join(" "));
    let (content, tag) = file;
    let whole = matches!(answer, Whole) || (guard.is_some() && guard.as_deref() != *tag);
    let start: usize = match range.filter(|_| !whole) {
        Some(range) => range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap(),
        None => 0,
    };
    let shift = usize::from(matches!(answer, Astray));
    let (status, extra) = match &answer {
        Status(status) => (status.to_string(), String::new()),
        Elsewhere(path) => ("302 Found".into(), format!("Location: {path}\r\n")),
        _ if start >= content.len() && start > 0 => ("416 Range Not Satisfiable".into(), String::new()),
        _ if start > 0 => {
            let range = format!("Content-Range: bytes {}-{}/{}\r\n", start + shift, content.len() - 1, content.len());
            ("206 Partial Content".into(), range)
        }
        _ => ("200 OK".into(), String::new()),
    };
    let body = if status.starts_with('2') { &content[start..] } else { b"" };
    let tag = tag.map_or(String::new(), |tag| format!("ETag: {tag}\r\n"));
    let length = format!("Content-Length: {}\r\n", body.len());
    let length = if matches!(answer, Endless) { "" } else { &length };
    let head = format!("HTTP/1.1 {status}\r\n{length}{tag}{extra}Connection: close\r\n\r\n");
    let count = match answer {
        Cut(count) | Silence(count) => count.min(body.len()),
        _ => body.len(),
    };
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..count]));
    if matches!(answer, Silence(_)) {
        thread::sleep(Duration::from_secs(10));
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(i) >> 3) as u8).collect()
}

/// A download into its own folder, ignoring proxies in the environment.
struct Job {
    folder: tempfile::TempDir,
    client: Client,
}

impl Job {
    fn new() -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_per_read(Some(Duration::from_secs(2)))
            .build();
        Job { folder: tempfile::tempdir().unwrap(), client: Client { agent: config.into(), pause: Duration::ZERO } }
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("set.tar.part")
    }

    fn get(&self, wanted: &Wanted) -> Result<()> {
        self.client.download(wanted, &self.folder.path().join("set.tar"), &mut |_, _| ())
    }

    /// Simulates an earlier run interrupted after these bytes of that version.
    fn stopped(&self, bytes: &[u8], url: &str, tag: Option<&str>) {
        fs::write(self.part(), bytes).unwrap();
        let version = Version { url: url.into(), validator: tag.map(Into::into), total: None };
        fs::write(self.folder.path().join("set.tar.part.json"), serde_json::to_vec(&version).unwrap()).unwrap();
    }

    fn came(&self) -> bool {
        let mut names: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names == ["set.tar.part"] && fs::read(self.part()).unwrap() == content()
    }
}

fn wanted(urls: &[String]) -> Wanted<'_> {
    Wanted { urls, bytes: None, checked: false }
}

fn trouble(done: Result<()>) -> Unavailable {
    done.unwrap_err().downcast().expect("it is not this machine's fault")
}

#[test]
fn a_file_comes_whole() {
    let (server, job) = (Server::new(&content(), Some("\"v1\""), &[]), Job::new());
    let mut reports = vec![];
    let to = job.folder.path().join("set.tar");
    job.client.download(&wanted(&[server.url()]), &to, &mut |done, total| reports.push((done, total))).unwrap();
    assert!(job.came());
    assert_eq!(server.asked(), ["/set.tar"]);
    assert_eq!((reports[0], reports.last()), ((0, Some(300_000)), Some(&(300_000, Some(300_000)))));
}

#[test]
fn a_broken_connection_is_resumed() {
    let (server, job) = (Server::new(&content(), Some("\"v1\""), &[Cut(100_000), Cut(50_000)]), Job::new());
    job.get(&wanted(&[server.url()])).unwrap();
    assert!(job.came());
    let asked = ["/set.tar", "/set.tar bytes=100000- \"v1\"", "/set.tar bytes=150000- \"v1\""];
    assert_eq!(server.asked(), asked);
}

#[test]
fn a_later_run_resumes_too() {
    // If the connection delivers nothing at all, the URL is given up.
    let answers = [Cut(100_000), Cut(0), Well];
    let (server, job) = (Server::new(&content(), Some("\"v1\""), &answers), Job::new());
    let error = trouble(job.get(&wanted(&[server.url()])));
    assert!(error.to_string().contains("the connection broke off after 100000 of 300000 bytes"), "{error}");
    assert!(!error.offline);
    job.get(&wanted(&[server.url()])).unwrap();
    assert!(job.came());
    assert_eq!(server.asked()[2], "/set.tar bytes=100000- \"v1\"");
}

#[test]
fn a_server_that_stops_sending_is_abandoned() {
    let (server, job) = (Server::new(&content(), Some("\"v1\""), &[Silence(1000)]), Job::new());
    job.get(&wanted(&[server.url()])).unwrap();
    assert!(job.came());
    assert_eq!(server.asked()[1], "/set.tar bytes=1000- \"v1\"");
}

#[test]
fn a_server_without_ranges_starts_over() {
    let (server, job) = (Server::new(&content(), Some("\"v1\""), &[Cut(100_000), Whole]), Job::new());
    job.get(&wanted(&[server.url()])).unwrap();
    assert!(job.came());
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn another_version_starts_over() {
    let (server, job) = (Server::new(&content(), Some("\"v2\""), &[]), Job::new());
    job.stopped(&[7; 1000], &server.url(), Some("\"v1\""));
    job.get(&wanted(&[server.url()])).unwrap();
    assert!(job.came());
    assert_eq!(server.asked(), ["/set.tar bytes=1000- \"v1\""]);
}

#[test]
fn indistinguishable_versions_start_over() {
    // No ETag, no checksum: nothing would detect that the halves do not match.
    let (server, job) = (Server::new(&content(), None, &[]), Job::new());
    job.stopped(&content()[..1000], &server.url(), None);
    job.get(&wanted(&[server.url()])).unwrap();
    assert!(job.came());
    assert_eq!(server.asked(), ["/set.tar"]);
    // A checksum would.
    let job = Job::new();
    let server = Server::new(&content(), Some("\"b\""), &[]);
    job.stopped(&content()[..1000], "http://elsewhere/set.tar", Some("\"a\""));
    job.get(&Wanted { checked: true, ..wanted(&[server.url()]) }).unwrap();
    assert!(job.came());
    assert_eq!(server.asked(), ["/set.tar bytes=1000-"]);
}

#[test]
fn a_range_that_was_not_requested_starts_over() {
    let (server, job) = (Server::new(&content(), Some("\"v1\""), &[Astray]), Job::new());
    job.stopped(&content()[..1000], &server.url(), Some("\"v1\""));
    job.get(&wanted(&[server.url()])).unwrap();
    assert!(job.came());
    assert_eq!(server.asked(), ["/set.tar bytes=1000- \"v1\"", "/set.tar"]);
}

#[test]
fn a_part_that_is_longer_than_the_file_starts_over() {
    let (server, job) = (Server::new(&content(), Some("\"v1\""), &[]), Job::new());
    job.stopped(&[7; 400_000], &server.url(), Some("\"v1\""));
    job.get(&wanted(&[server.url()])).unwrap();
    assert!(job.came());
    // The server refused it with 416.
    assert_eq!(server.asked(), ["/set.tar bytes=400000- \"v1\"", "/set.tar"]);
    let job = Job::new();
    job.stopped(&[7; 400_000], &server.url(), Some("\"v1\""));
    job.get(&Wanted { bytes: Some(300_000), ..wanted(&[server.url()]) }).unwrap();
    assert!(job.came());
    assert_eq!(server.asked()[2], "/set.tar");
}

#[test]
fn a_server_that_is_down_for_a_while_loses_no_bytes() {
    let (server, job) = (Server::new(&content(), Some("\"v1\""), &[Status("503 Service Unavailable")]), Job::new());
    job.stopped(&content()[..1000], &server.url(), Some("\"v1\""));
    let error = trouble(job.get(&wanted(&[server.url()])));
    assert!(error.to_string().contains("the server answers 503"), "{error}");
    job.get(&wanted(&[server.url()])).unwrap();
    assert!(job.came());
    assert_eq!(server.asked(), ["/set.tar bytes=1000- \"v1\"", "/set.tar bytes=1000- \"v1\""]);
}

#[test]
fn a_complete_part_is_not_requested() {
    let (server, job) = (Server::new(&content(), Some("\"v1\""), &[]), Job::new());
    job.stopped(&content(), &server.url(), Some("\"v1\""));
    job.get(&Wanted { bytes: Some(300_000), ..wanted(&[server.url()]) }).unwrap();
    assert!(job.came());
    assert!(server.asked().is_empty());
}

#[test]
fn the_next_address_is_tried() {
    let bad = Server::new(&content(), None, &[Status("404 Not Found")]);
    let (good, job) = (Server::new(&content(), None, &[]), Job::new());
    job.get(&wanted(&["http://127.0.0.1:1/set.tar".into(), bad.url(), good.url()])).unwrap();
    assert!(job.came());
    assert_eq!((bad.asked().len(), good.asked().len()), (1, 1));
}

#[test]
fn another_length_is_not_downloaded() {
    let (server, job) = (Server::new(&content(), None, &[]), Job::new());
    let error = trouble(job.get(&Wanted { bytes: Some(5), ..wanted(&[server.url()]) }));
    assert!(error.to_string().contains("the file there has 300000 bytes, 5 are expected"), "{error}");
    assert!(!job.part().exists());
    // A server that sends no length is stopped, too.
    let (server, job) = (Server::new(&content(), None, &[Endless]), Job::new());
    let error = trouble(job.get(&Wanted { bytes: Some(5), ..wanted(&[server.url()]) }));
    assert!(error.to_string().contains("it sends more than the expected 5 bytes"), "{error}");
    assert!(!job.part().exists());
}

#[test]
fn a_redirect_is_followed() {
    let (server, job) = (Server::new(&content(), None, &[Elsewhere("/b/set.tar")]), Job::new());
    job.get(&wanted(&[server.url()])).unwrap();
    assert!(job.came());
    assert_eq!(server.asked(), ["/set.tar", "/b/set.tar"]);
}

#[test]
fn without_network_it_says_so() {
    let job = Job::new();
    // Nothing listens on port 1.
    let error = trouble(job.get(&wanted(&["http://127.0.0.1:1/set.tar".into()])));
    assert!(error.offline && error.to_string().starts_with("no network: http://127.0.0.1:1/set.tar: "), "{error}");
    // `.invalid` never resolves (RFC 6761).
    let error = trouble(job.get(&wanted(&["http://nowhere.invalid/set.tar".into()])));
    assert!(error.offline && error.to_string().starts_with("no network: http://nowhere.invalid/set.tar: "), "{error}");
    let server = Server::new(&content(), None, &[Status("404 Not Found")]);
    let error = trouble(job.get(&wanted(&["http://127.0.0.1:1/set.tar".into(), server.url()])));
    assert!(!error.offline && error.to_string().contains("the server answers 404 Not Found"), "{error}");
}
