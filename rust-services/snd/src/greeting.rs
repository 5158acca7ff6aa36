// SPDX-License-Identifier: Apache-2.0

//! What the service says of itself when it starts: one line.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use crate::backend::file::directory;
use crate::config::{BackendConfig, SndConfig};
use crate::wire::Direction;

/// Where it listens, what the card has, and where files go.
pub(crate) fn of(config: &SndConfig, listener: &UnixListener) -> String {
    let address = listener.local_addr().ok();
    let path = address.as_ref().and_then(|address| address.as_pathname());
    let path = path.map_or_else(
        || "a socket without a path".to_owned(),
        |path| path.display().to_string(),
    );
    let streams = |direction| {
        let of_it = config.streams.iter();
        of_it.filter(|stream| stream.direction == direction).count()
    };
    let mut line = format!(
        "listens on {path}; {}, {}, {}",
        counted(streams(Direction::Output), "output"),
        counted(streams(Direction::Input), "input"),
        counted(config.jacks.len(), "jack")
    );
    let folders: BTreeSet<PathBuf> = config
        .streams
        .iter()
        .filter(|stream| stream.direction == Direction::Output)
        .filter_map(|stream| match &stream.backend {
            BackendConfig::File(file) => Some(directory(&file.path)),
            _ => None,
        })
        .map(|folder| std::path::absolute(&folder).unwrap_or(folder))
        .collect();
    if !folders.is_empty() {
        let folders: Vec<String> = folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        line = format!("{line}; plays into files in {}", folders.join(", "));
    }
    line
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_where_it_listens_what_the_card_has_and_where_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("a.sock")).unwrap();
        let mut config = SndConfig::default();
        for stream in &mut config.streams {
            if let BackendConfig::File(file) = &mut stream.backend {
                file.path = "/played/{stream}-{n}.wav".to_owned();
            }
        }
        assert_eq!(
            of(&config, &listener),
            format!(
                "listens on {}/a.sock; 2 outputs, 1 input, 2 jacks; plays into files in /played",
                folder.path().display()
            )
        );
    }
}
