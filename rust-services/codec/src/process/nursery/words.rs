// SPDX-License-Identifier: Apache-2.0

//! What a worker writes to its standard output and error: that it has loaded its codecs, and what its
//! libraries have to say.
//!
//! It may write without end. No more is read than is of use, and no worker waits for that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::process::allowance::Allowance;

/// The line with which a worker says that it has loaded its codecs.
pub(in crate::process) const READY: &str = "\u{6}ready";
/// Bytes of a line that are looked at.
const MOST_LINE: usize = 500;
/// Lines that are told at once, and after how long one more is.
const MOST_LINES: u32 = 5;
const NEXT_LINE: Duration = Duration::from_secs(2);
/// Bytes that are read at once.
const AT_ONCE: usize = 4096;
/// Whoever had so much to say is heard again after this time.
const PAUSE: Duration = Duration::from_millis(50);

/// The end of a pipe where a worker's words come out.
#[derive(Debug)]
pub(super) struct Words {
    /// Nothing once it is closed.
    pipe: Option<OwnedFd>,
    line: Vec<u8>,
    told: Allowance,
    left_out: u64,
    paused: Option<Instant>,
    is_ready: bool,
}

impl Words {
    /// Both ends: this one, and what the worker writes to.
    pub(super) fn new(now: Instant) -> io::Result<(Self, OwnedFd)> {
        // Who writes more than is read loses it, and does not wait.
        let (pipe, its) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let words = Self {
            pipe: Some(pipe),
            line: Vec::new(),
            told: Allowance::new(MOST_LINES, NEXT_LINE, now),
            left_out: 0,
            paused: None,
            is_ready: false,
        };
        Ok((words, its))
    }

    /// Whether the worker has loaded its codecs.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        let pipe = self.pipe.as_ref().filter(|_| self.paused.is_none());
        pipe.map(AsFd::as_fd)
    }

    /// When there may be something though nothing is waited for.
    pub(super) fn paused(&self) -> Option<Instant> {
        self.pipe.as_ref().and(self.paused)
    }

    /// The same, of who cannot write any more.
    pub(super) fn read_on(&mut self, now: Instant) -> Vec<String> {
        self.paused = None;
        self.read(now)
    }

    /// The lines that came, of a flood only the first ones.
    pub(super) fn read(&mut self, now: Instant) -> Vec<String> {
        if self.paused.is_some_and(|until| now < until) {
            return Vec::new();
        }
        self.paused = None;
        let Some(pipe) = &self.pipe else {
            return Vec::new();
        };
        let mut bytes = [0; AT_ONCE];
        let read = match rustix::io::read(pipe, &mut bytes) {
            Ok(read) if read > 0 => read,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Vec::new(),
            _ => {
                self.pipe = None;
                return Vec::new();
            }
        };
        if read == AT_ONCE {
            self.paused = now.checked_add(PAUSE);
        }
        let mut lines = Vec::new();
        for byte in bytes.iter().take(read) {
            if *byte == b'\n' {
                lines.extend(self.line(now));
            } else if self.line.len() < MOST_LINE {
                self.line.push(*byte);
            }
        }
        lines
    }

    /// The line that has come to its end, if it is to be told.
    fn line(&mut self, now: Instant) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if line == READY {
            self.is_ready = true;
            return None;
        }
        let line = line.trim();
        if line.is_empty() {
            return None;
        }
        if !self.told.take(now) {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        Some(match std::mem::take(&mut self.left_out) {
            0 => line.to_owned(),
            count => format!("{line} ({count} lines before it were left out)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_words_is_cut_and_nobody_waits_for_it() {
        let now = Instant::now();
        let (mut words, its) = Words::new(now).unwrap();
        let flood = b"something is odd\n".repeat(300);
        while rustix::io::write(&its, &flood).is_ok() {}
        assert_eq!(words.read(now).len(), 5);
        assert!(words.fd().is_none(), "it is heard later");
        assert_eq!(words.paused(), Some(now + PAUSE));
        assert!(words.read(now).is_empty() && words.fd().is_none());
        assert!(words.read(now + PAUSE).is_empty());
        drop(its);
        let mut later = now + PAUSE;
        while words.pipe.is_some() {
            later += PAUSE;
            assert!(words.read(later).is_empty());
        }
        assert!(words.paused().is_none(), "nothing more is waited for");
        assert!(later < now + NEXT_LINE && words.left_out > 3000);
    }

    #[test]
    fn lines_come_whole_and_the_word_of_readiness_is_none() {
        let now = Instant::now();
        let (mut words, its) = Words::new(now).unwrap();
        rustix::io::write(&its, b"one\n\ntw").unwrap();
        assert_eq!(words.read(now), ["one"]);
        assert!(!words.is_ready());
        rustix::io::write(&its, format!("o\n{READY}\nthree\n").as_bytes()).unwrap();
        assert_eq!(words.read(now), ["two", "three"]);
        assert!(words.is_ready());
        let long = [&[b'x'; 2000][..], b"\n"].concat();
        rustix::io::write(&its, &long).unwrap();
        assert_eq!(words.read(now)[0].len(), MOST_LINE);
    }
}
