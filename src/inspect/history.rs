//! The runs of a store, each with how it ended and the time that its hits saved.

use anyhow::{Result, bail};
use caco_engine::{
    history::{self, Ended, Run, Saved},
    key::Key,
    store::Store,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::{collections::HashMap, time::Duration};

/// A run.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Past {
    /// Its record.
    #[serde(flatten)]
    pub run: Run,
    /// How it ended, in a few words.
    pub outcome: String,
    /// The time that its hits saved.
    pub saved: Saved,
}

impl Past {
    /// How long it took, or has taken so far. None: it was killed, at an unknown time.
    pub fn took(&self) -> Option<Duration> {
        match &self.run.ended {
            Some(ended) => Duration::try_from_secs_f64(ended.seconds).ok(),
            None if self.run.running => humantime::parse_rfc3339(&self.run.began.started).ok()?.elapsed().ok(),
            None => None,
        }
    }

    fn of(run: Run, store: &Store, known: &mut HashMap<Key, Option<f64>>) -> Past {
        Past { saved: run.saved(store, known), outcome: outcome(&run), run }
    }
}

/// The run whose name starts so. None: no run's does.
///
/// # Errors
/// Where several do, or its record cannot be read.
pub fn run(store: &Store, start: &str) -> Result<Option<Past>> {
    let ids = history::runs(store)?;
    let found: Vec<&String> = ids.iter().filter(|id| id.starts_with(start)).collect();
    let id = match found.as_slice() {
        [] => return Ok(None),
        [id] => id,
        [last, .., first] => {
            bail!("{} runs start with '{start}', from {first} to {last}; give more characters", found.len())
        }
    };
    let Some(run) = Run::read(store, id)? else { bail!("the record of run '{id}' cannot be read") };
    Ok(Some(Past::of(run, store, &mut HashMap::new())))
}

/// The newest runs, `most` of them; of one pipeline, where one is named.
///
/// # Errors
/// Where the store cannot be read.
pub fn newest(store: &Store, pipeline: Option<&str>, most: usize) -> Result<Vec<Past>> {
    let (mut known, mut found) = (HashMap::new(), vec![]);
    for id in history::runs(store)? {
        if found.len() == most {
            break;
        }
        let Some(run) = Run::read(store, &id)? else { continue };
        if pipeline.is_none_or(|pipeline| pipeline == run.began.request.pipeline) {
            found.push(Past::of(run, store, &mut known));
        }
    }
    Ok(found)
}

fn outcome(run: &Run) -> String {
    let Some(ended) = &run.ended else {
        return if run.running { "running".into() } else { "killed".into() };
    };
    match ended {
        Ended { error: Some(error), .. } => format!("broke off: {error}"),
        Ended { interrupted: Some(0), .. } => "stopped by its time limit".into(),
        Ended { interrupted: Some(signal), .. } => format!("stopped by signal {signal}"),
        Ended { failed: 0, skipped: 0, .. } => "done".into(),
        Ended { failed: 0, skipped, .. } => format!("{skipped} not run"),
        Ended { failed, .. } => format!("{failed} failed"),
    }
}
