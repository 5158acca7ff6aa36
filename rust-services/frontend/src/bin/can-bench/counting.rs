// SPDX-License-Identifier: Apache-2.0
//! What a frame costs, by tools below which the service runs: two runs of different length, their
//! difference divided by the frames between them, so that starting and ending cancel out.

use std::fs;
use std::path::Path;

use frontend::Error;

use crate::one_by_one;
use crate::subject::{Plan, io};

const SHORT: u32 = 300;
const LONG: u32 = 1500;

/// A tool that counts, and what it says in its file.
#[derive(Clone, Copy)]
pub(crate) enum Tool {
    /// Instructions, of all threads.
    Callgrind,
    /// System calls, of all threads.
    Strace,
}

impl Tool {
    fn words(self, out: &Path) -> Vec<String> {
        let out = out.display();
        let words = match self {
            Self::Callgrind => {
                format!("valgrind --quiet --tool=callgrind --callgrind-out-file={out}")
            }
            Self::Strace => format!("strace -f -qq -c -o {out}"),
        };
        words.split(' ').map(str::to_owned).collect()
    }

    fn total(self, text: &str) -> Option<u64> {
        let number = match self {
            Self::Callgrind => text
                .lines()
                .find_map(|line| line.strip_prefix("totals: "))?
                .split_whitespace()
                .next(),
            // time, seconds, a call, calls, errors where there are any
            Self::Strace => text
                .lines()
                .find(|line| line.ends_with("total"))?
                .split_whitespace()
                .nth(3),
        };
        number?.parse().ok()
    }
}

/// What the tool counts for one frame, one on its way.
pub(crate) fn per_frame(plan: &Plan, tool: Tool) -> Result<f64, Error> {
    let (short, long) = (run(plan, tool, SHORT)?, run(plan, tool, LONG)?);
    Ok((long as f64 - short as f64) / f64::from(LONG - SHORT))
}

fn run(plan: &Plan, tool: Tool, frames: u32) -> Result<u64, Error> {
    let folder = tempfile::tempdir().map_err(io("make a folder"))?;
    let out = folder.path().join("out");
    let subject = plan.start_below(&tool.words(&out))?;
    let mut client = plan.connect()?;
    one_by_one(&mut client, frames)?;
    subject.end()?;
    let text = fs::read_to_string(&out).map_err(io("read what was counted"))?;
    tool.total(&text)
        .ok_or_else(|| Error::Service(format!("nothing was counted: {text:.500}")))
}
