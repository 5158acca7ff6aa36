// SPDX-License-Identifier: Apache-2.0
//! Completion for shells and manual pages, made from the command line itself.

use crate::error::CtlError;
use crate::options::Options;
use crate::say;
use clap::CommandFactory;
use std::path::Path;

pub(crate) fn completion(shell: clap_complete::Shell) -> Result<(), CtlError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "agl-virtioctl", &mut text);
    say(&String::from_utf8_lossy(&text))
}

/// A page for the program and one for each command.
pub(crate) fn manual(folder: &Path) -> Result<(), CtlError> {
    let failed = |source| CtlError::File {
        what: folder.to_owned(),
        source,
    };
    clap_mangen::generate_to(Options::command().disable_help_subcommand(true), folder)
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_has_a_page() {
        Options::command().debug_assert();
        let folder = tempfile::tempdir().unwrap();
        manual(folder.path()).unwrap();
        for page in [
            "agl-virtioctl.1",
            "agl-virtioctl-start.1",
            "agl-virtioctl-top.1",
        ] {
            let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
    }
}
