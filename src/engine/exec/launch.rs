//! A program to start, as a value and as a file.

use super::{
    super::{confine::Confinement, signals::Signals},
    Report,
    local::Process,
};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

/// A program to start.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The folder where it runs.
    pub folder: PathBuf,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// The file that its output is appended to.
    pub log: PathBuf,
    /// What it may open. None: all that its user may.
    pub confinement: Option<Confinement>,
}

impl Launch {
    /// Writes it to a file that only this user can read: the environment may hold secrets.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut new = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
        new.write_all(&serde_json::to_vec_pretty(self)?)
    }

    /// The file beside a launch file that its report is written to.
    pub fn report_file(file: &Path) -> PathBuf {
        file.with_extension("report.json")
    }

    /// Reads the report of a launch file. None: the program has not ended.
    ///
    /// # Errors
    /// Where the report is there and cannot be read.
    pub fn report(file: &Path) -> io::Result<Option<Report>> {
        match fs::read(Launch::report_file(file)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// How often signals are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Executes the launch in a file, confined as it says, and writes the report beside it. A signal noted in `signals` asks
/// the program to write a checkpoint and end; a second one kills it.
///
/// # Errors
/// Where the file is no launch, the program cannot be started, or the report cannot be written.
pub fn exec_stage(file: &Path, signals: &Signals) -> io::Result<Report> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot read {}: {e}", file.display()));
    let text = fs::read(file).map_err(named)?;
    let launch: Launch = serde_json::from_slice(&text).map_err(|e| named(e.into()))?;
    let (sender, receiver) = mpsc::channel();
    let process = Process::start(&launch, None, Box::new(move |report| _ = sender.send(report)))?;
    let mut noted = 0;
    let report = loop {
        match receiver.recv_timeout(TICK) {
            Ok(report) => break report,
            Err(RecvTimeoutError::Timeout) => noted = pass_on(&process, signals, noted),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the program cannot be waited for")),
        }
    };
    let to = Launch::report_file(file);
    let aside = to.with_extension("new");
    fs::write(&aside, serde_json::to_vec_pretty(&report)?)?;
    fs::rename(&aside, &to)?;
    Ok(report)
}

/// Passes signals on to the program, as often as they came. Returns how many have been.
fn pass_on(process: &Process, signals: &Signals, noted: u32) -> u32 {
    use super::Handle as _;
    let (count, _) = signals.get();
    match count {
        _ if count == noted => {}
        1 => process.interrupt(),
        _ => process.kill(),
    }
    count
}

#[cfg(test)]
mod tests {
    use super::{super::Outcome, *};

    fn launch(folder: &Path, line: &str) -> PathBuf {
        let launch = Launch {
            argv: ["sh", "-c", line].map(String::from).into(),
            folder: folder.into(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            log: folder.join("log"),
            confinement: None,
        };
        let file = folder.join("launch.json");
        launch.write(&file).unwrap();
        file
    }

    #[test]
    fn a_launch_file_is_executed_and_its_report_written_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = launch(folder.path(), "echo hello; exit 3");
        assert_eq!(Launch::report(&file).unwrap(), None);
        let report = exec_stage(&file, &Signals::default()).unwrap();
        assert_eq!(report, Report { outcome: Outcome::Failed("exit code 3".into()), refusals: None });
        assert_eq!(Launch::report(&file).unwrap(), Some(report));
        assert_eq!(fs::read_to_string(folder.path().join("log")).unwrap(), "hello\n");
    }

    #[test]
    fn a_signal_is_passed_on_to_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let file = launch(folder.path(), "trap 'kill $!; exit 75' TERM; touch ready; sleep 60 & wait");
        let signals = Signals::default();
        let report = std::thread::scope(|scope| {
            let running = scope.spawn(|| exec_stage(&file, &signals).unwrap());
            while !folder.path().join("ready").exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            signals.note(libc::SIGTERM);
            running.join().unwrap()
        });
        assert_eq!(report.outcome, Outcome::Stopped);
    }

    #[test]
    fn what_is_no_launch_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("launch.json");
        fs::write(&file, r#"{"argv": ["true"], "more": 1}"#).unwrap();
        let error = exec_stage(&file, &Signals::default()).unwrap_err().to_string();
        assert!(error.contains("launch.json") && error.contains("more"), "{error}");
    }
}
