// SPDX-License-Identifier: Apache-2.0

//! Why files cannot be written or recorded, as far as can be seen before.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use agl_virtio_service::Exit;
use rustix::fs::{Access, access};

use super::super::wav::{Contents, HEADER_BYTES, Layout, is_ours};
use super::{directory, read_head};
use crate::config::StreamConfig;

/// What stands in the way.
#[derive(Debug)]
pub(crate) struct Obstacle {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) remedy: String,
}

impl Obstacle {
    fn new(exit: Exit, message: String, remedy: &str) -> Self {
        Self {
            exit,
            message,
            remedy: remedy.to_owned(),
        }
    }
}

/// Why the files of a pattern cannot be made in their folder. Nothing is made to find out.
pub(crate) fn folder_obstacle(pattern: &str) -> Option<Obstacle> {
    let refused = |message| {
        let remedy = "the path of a folder that this user can write to";
        Some(Obstacle::new(Exit::CannotCreate, message, remedy))
    };
    let folder = directory(pattern);
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    for ancestor in folder.ancestors() {
        let shown = ancestor.display();
        match std::fs::metadata(ancestor) {
            Ok(found) if !found.is_dir() => return refused(format!("{shown} is no folder")),
            Ok(_) => {
                let error = access(ancestor, Access::WRITE_OK | Access::EXEC_OK).err()?;
                let error = std::io::Error::from(error);
                return refused(format!("cannot write to the folder {shown}: {error}"));
            }
            // A folder that is missing is made, if the one above can be written to.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            Err(error) => return refused(format!("cannot look at {shown}: {error}")),
        }
    }
    None
}

/// Why a new file must not replace what is at this path. Without a number in the pattern it would.
pub(crate) fn target_obstacle(pattern: &str, has_header: bool) -> Option<Obstacle> {
    if pattern.contains("{n}") {
        return None;
    }
    let refused = |what: &str| {
        let message = format!("{pattern} is {what}, and stays as it is");
        let remedy = "the path of a file of its own, such as \"/var/lib/sound/{stream}-{n}.wav\"";
        Some(Obstacle::new(Exit::CannotCreate, message, remedy))
    };
    let found = std::fs::metadata(pattern).ok()?;
    if !found.is_file() {
        return refused(if found.is_dir() {
            "a folder"
        } else {
            "no regular file"
        });
    }
    if found.len() == 0 || !has_header {
        return None;
    }
    let head = File::open(pattern).and_then(|mut file| read_head(&mut file));
    match head {
        Ok(head) if head.get(..HEADER_BYTES).is_some_and(is_ours) => None,
        _ => refused("a file that this service did not write"),
    }
}

/// Why this file cannot be recorded by this stream.
pub(crate) fn look_at_input(path: &Path, stream: &StreamConfig) -> Result<(), Obstacle> {
    let shown = path.display();
    let refused = |exit, message| Obstacle::new(exit, message, "the path of a WAV file");
    let unreadable = |error: std::io::Error| {
        refused(
            Exit::NoInput,
            match error.kind() {
                ErrorKind::NotFound => format!("there is no file {shown}"),
                _ => format!("cannot read {shown}: {error}"),
            },
        )
    };
    // Before it is opened: a FIFO would wait for its other end.
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if found.is_dir() {
        return Err(refused(Exit::NoInput, format!("{shown} is a folder")));
    }
    if !found.is_file() {
        let message = format!("{shown} is no regular file");
        return Err(refused(Exit::NoInput, message));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let head = read_head(&mut file).map_err(unreadable)?;
    let raw = stream
        .formats
        .iter()
        .any(|format| Layout::of(*format).is_none());
    let contents = match Contents::parse(&head, found.len()) {
        Ok(contents) => contents,
        // Formats that WAV has not are recorded as they lie in the file.
        Err(_) if raw && !head.starts_with(b"RIFF") => return Ok(()),
        Err(reason) => return Err(refused(Exit::Data, format!("{shown}: {reason}"))),
    };
    if contents.data_bytes == 0 {
        return Err(refused(Exit::Data, format!("{shown} has no samples")));
    }
    let channels = u16::from(stream.channels_min)..=u16::from(stream.channels_max);
    let layouts = stream
        .formats
        .iter()
        .filter_map(|format| Layout::of(*format));
    let offered = channels.contains(&contents.channels)
        && stream.rates.contains(&contents.hertz)
        && layouts.into_iter().any(|layout| contents.has(layout));
    if offered {
        return Ok(());
    }
    Err(Obstacle::new(
        Exit::Config,
        format!(
            "{shown} has {} channels at {} Hz and {} bits, which this stream does not offer",
            contents.channels,
            contents.hertz,
            contents.bits()
        ),
        "channels_min, channels_max, rates and formats that include it, or convert the file",
    ))
}
