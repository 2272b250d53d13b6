//! A program to start, as a value and as a file.

use super::{
    super::{confine::Confinement, guard::Guard, mounts::Mounts, signals::Signals},
    Handle as _, Outcome, Report,
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
    /// What it finds at other paths than everybody else.
    #[serde(default, skip_serializing_if = "Mounts::is_empty")]
    pub mounts: Mounts,
}

impl Launch {
    /// Writes it to a file that only this user can read: the environment may hold secrets. Removes the report of an
    /// earlier launch in the same file.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        match fs::remove_file(Launch::report_file(file)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        write_aside(file, &serde_json::to_vec_pretty(self)?)
    }

    /// The file beside a launch file that its report is written to.
    fn report_file(file: &Path) -> PathBuf {
        suffixed(file, ".report.json")
    }

    /// Reads the report of a launch file. None: the program has not ended, or `exec-stage` was killed.
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

/// How often signals are checked.
const TICK: Duration = Duration::from_millis(50);

/// Executes the launch in a file, confined as it says, and writes the report beside it. The first signal noted in
/// `signals` asks the program to write a checkpoint and end; a later one kills it.
///
/// # Errors
/// Where the file cannot be read as a launch, or the report cannot be written.
pub fn exec_stage(file: &Path, signals: &Signals) -> io::Result<Report> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot read {}: {e}", file.display()));
    let text = fs::read(file).map_err(named)?;
    let launch: Launch = serde_json::from_slice(&text).map_err(|e| named(e.into()))?;
    let report = execute(&launch, signals)
        .unwrap_or_else(|error| Report { outcome: Outcome::Failed(error.to_string()), refusals: None });
    write_aside(&Launch::report_file(file), &serde_json::to_vec_pretty(&report)?)?;
    Ok(report)
}

fn execute(launch: &Launch, signals: &Signals) -> io::Result<Report> {
    let (sender, receiver) = mpsc::channel();
    // Whatever kills this process may leave the program's own children; the guard does not.
    let mut guard = Guard::start().ok();
    let process = Process::start(launch, None, Box::new(move |report| _ = sender.send(report)))?;
    if let (Some(guard), Some(group)) = (&mut guard, process.group()) {
        guard.add(group);
    }
    let mut passed_on = 0;
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(report) => return Ok(report),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the program cannot be waited for")),
        }
        // One a tick: a program that is sent two at once is still asked first.
        if signals.get().0 > passed_on {
            match passed_on {
                0 => process.interrupt(),
                _ => process.kill(),
            }
            passed_on += 1;
        }
    }
}

fn suffixed(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Writes a private file atomically. `store::write_aside` makes files that everybody may read.
fn write_aside(file: &Path, text: &[u8]) -> io::Result<()> {
    let aside = suffixed(file, ".new");
    let _ = fs::remove_file(&aside);
    let written = || {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?.write_all(text)?;
        fs::rename(&aside, file)
    };
    written().inspect_err(|_| _ = fs::remove_file(&aside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(folder: &Path, line: &str) -> PathBuf {
        let launch = Launch {
            argv: ["sh", "-c", line].map(String::from).into(),
            folder: folder.into(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            log: folder.join("log"),
            confinement: None,
            mounts: Mounts::default(),
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
    fn a_program_that_cannot_be_started_is_reported_and_an_earlier_report_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = launch(folder.path(), "true");
        exec_stage(&file, &Signals::default()).unwrap();
        let mut broken: Launch = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        broken.argv[0] = "no-such-program".into();
        broken.write(&file).unwrap();
        assert_eq!(Launch::report(&file).unwrap(), None);
        let report = exec_stage(&file, &Signals::default()).unwrap();
        assert!(matches!(report.outcome, Outcome::Failed(why) if why.contains("no-such-program")));
        assert!(Launch::report(&file).unwrap().is_some());
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
