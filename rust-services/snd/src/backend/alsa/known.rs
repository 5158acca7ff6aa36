// SPDX-License-Identifier: Apache-2.0

//! Whether alsa-lib's configuration has a PCM of some name, found out without opening it.

use alsa::{Direction, Output as Text, PCM};

use super::super::StreamIdentity;
use super::name;

/// An argument whose quotation never ends: no definition of a PCM takes it.
const NO_ARGUMENT: &str = "\"";

/// Why the name leads nowhere; nothing where there is such a PCM.
///
/// Whether its card or server is there is not looked at: they may come later.
pub(crate) fn unknown(pcm: &str, stream: &StreamIdentity) -> Option<String> {
    let filled = name::of_stream(pcm, stream);
    let base = filled.split(':').next().unwrap_or_default().trim();
    // alsa-lib looks the name up, then refuses the argument (EINVAL), before it opens or loads
    // anything; a name that it does not find it refuses first, and differently.
    let probe = format!("{base}:{NO_ARGUMENT}");
    // What it has to say goes to a text instead of the terminal.
    let _text = Text::local_error_handler().ok();
    let error = PCM::new(&probe, Direction::Playback, true).err()?;
    let error = std::io::Error::from_raw_os_error(error.errno());
    (error.kind() == std::io::ErrorKind::NotFound).then(|| format!("ALSA has no PCM named {base}"))
}

#[cfg(test)]
mod tests {
    use super::super::super::Role;
    use super::*;

    #[test]
    fn a_name_that_no_configuration_has_is_unknown_and_a_card_that_is_away_is_not() {
        let stream = StreamIdentity {
            guest: "ivi".into(),
            device: "sound".into(),
            stream: "voice".into(),
            index: 0,
            role: Role::Communication,
        };
        for known in ["null", "hw:7", "plughw:CARD=Nowhere,DEV=9", "plug:'hw:3'"] {
            assert_eq!(unknown(known, &stream), None, "{known}");
        }
        for name in ["nosuchpcm", "nosuchpcm:0", "no{stream}such"] {
            let reason = unknown(name, &stream).unwrap();
            assert!(reason.contains("ALSA has no PCM named no"), "{reason}");
        }
    }
}
