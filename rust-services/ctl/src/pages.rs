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
    use clap_complete::Shell;
    use std::collections::BTreeSet;

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

    fn names(folder: &Path) -> BTreeSet<std::ffi::OsString> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    /// A package for another machine cannot run the program: what it installs is checked in.
    /// AGL_VIRTIO_UPDATE=1 writes it.
    #[test]
    fn the_pages_and_completions_that_are_installed_are_in_step() {
        let installed = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/pages"));
        let made = tempfile::tempdir().unwrap();
        manual(made.path()).unwrap();
        for (shell, file) in [
            (Shell::Bash, "agl-virtioctl.bash"),
            (Shell::Fish, "agl-virtioctl.fish"),
            (Shell::Zsh, "_agl-virtioctl"),
        ] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Options::command(), "agl-virtioctl", &mut text);
            std::fs::write(made.path().join(file), text).unwrap();
        }
        if std::env::var_os("AGL_VIRTIO_UPDATE").is_some() {
            let _ = std::fs::remove_dir_all(installed);
            std::fs::create_dir(installed).unwrap();
            for name in names(made.path()) {
                std::fs::copy(made.path().join(&name), installed.join(&name)).unwrap();
            }
        }
        assert_eq!(names(made.path()), names(installed));
        for name in names(made.path()) {
            let read = |folder: &Path| std::fs::read_to_string(folder.join(&name)).unwrap();
            assert!(
                read(made.path()) == read(installed),
                "pages/{} is out of step: run this test with AGL_VIRTIO_UPDATE=1",
                name.display()
            );
        }
    }
}
