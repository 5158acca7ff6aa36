// SPDX-License-Identifier: Apache-2.0

//! Names of PCMs: alsa-lib's small language of `name:ARGUMENT=value,…`.

use super::super::{Role, StreamIdentity, placeholder};

/// Says what is wrong with a name that can never be opened.
pub(super) fn check(pcm: &str) -> Result<(), &'static str> {
    if pcm.trim().is_empty() {
        return Err("a name is needed: write for example \"default\"");
    }
    if pcm.chars().any(char::is_control) {
        return Err("it holds a control character: write the name on one line");
    }
    if pcm.contains('\'') && pcm.contains('"') {
        return Err("it holds both kinds of quotation marks: use one of them");
    }
    Ok(())
}

/// Whether the name means the bare card, where nothing is to be converted.
pub(super) fn is_bare(pcm: &str) -> bool {
    pcm.starts_with("hw:")
}

/// Whether the name leads to a card without a sound server between.
pub(super) fn is_card(pcm: &str) -> bool {
    is_bare(pcm) || pcm.starts_with("plughw:")
}

/// The name for this stream: with its names filled in, and its role where PipeWire can take it.
pub(super) fn of_stream(pcm: &str, stream: &StreamIdentity) -> String {
    let filled = placeholder::fill(pcm.trim(), stream);
    let role = stream.role.name();
    match filled.strip_prefix("pipewire") {
        Some("" | ":") => format!("pipewire:ROLE={role}"),
        // Named arguments without a role. Those in order (`pipewire:SERVER,NODE`) and those in
        // braces are left as they are: whoever writes them knows the plugin.
        Some(arguments)
            if arguments.starts_with(':')
                && arguments.contains('=')
                && !arguments.contains(['{', '"', '\''])
                && !arguments.contains("ROLE=") =>
        {
            format!("{filled},ROLE={role}")
        }
        _ => filled,
    }
}

/// Whether the name has the stream's role in it.
pub(super) fn has_role(pcm: &str) -> bool {
    let of = |role| {
        let stream = StreamIdentity {
            guest: String::new(),
            device: String::new(),
            stream: String::new(),
            index: 0,
            role,
        };
        of_stream(pcm, &stream)
    };
    of(Role::Multimedia) != of(Role::Emergency)
}

/// The same PCM behind the plugin that converts formats, rates and channels. `None` for one where
/// that is not wanted.
pub(super) fn converted(name: &str) -> Option<String> {
    if is_bare(name) || name.starts_with("plug:") || name.starts_with("plughw:") {
        return None;
    }
    let mark = if name.contains('\'') { '"' } else { '\'' };
    Some(format!("plug:SLAVE={mark}{name}{mark}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_tell_pipewire_the_role_or_ask_for_it_have_it() {
        for (pcm, has) in [
            ("pipewire", true),
            ("pipewire:NODE=x", true),
            ("pulse:{role}", true),
            ("pipewire:ROLE=Game", false),
            ("default", false),
            ("hw:0", false),
        ] {
            assert_eq!(has_role(pcm), has, "{pcm}");
        }
    }

    fn stream() -> StreamIdentity {
        StreamIdentity {
            guest: "ivi".into(),
            device: "sound".into(),
            stream: "voice".into(),
            index: 1,
            role: Role::Communication,
        }
    }

    #[test]
    fn pipewire_is_told_the_role_and_others_where_they_ask_for_it() {
        for (written, opened) in [
            ("pipewire", "pipewire:ROLE=Communication"),
            ("pipewire:NODE=car", "pipewire:NODE=car,ROLE=Communication"),
            ("pipewire:ROLE=Phone", "pipewire:ROLE=Phone"),
            ("pipewire:{ROLE=x}", "pipewire:{ROLE=x}"),
            ("pipewire:other-0", "pipewire:other-0"),
            ("default", "default"),
            ("hw:{device}", "hw:sound"),
            ("mine:R={role},S={stream}", "mine:R=Communication,S=voice"),
        ] {
            assert_eq!(of_stream(written, &stream()), opened, "{written}");
        }
    }

    #[test]
    fn a_card_is_never_converted_and_all_else_is_converted_once() {
        assert_eq!(converted("hw:0"), None);
        assert_eq!(converted("plughw:0"), None);
        assert_eq!(converted("plug:'hw:0'"), None);
        assert_eq!(
            converted("pipewire:ROLE=x").unwrap(),
            "plug:SLAVE='pipewire:ROLE=x'"
        );
        assert_eq!(converted("a:'b'").unwrap(), "plug:SLAVE=\"a:'b'\"");
    }

    #[test]
    fn names_that_can_be_none_are_refused() {
        assert!(check("default").is_ok());
        assert!(check("plug:'hw:0'").is_ok());
        for name in ["", "  ", "a\nb", "a\0b", "a'\"b"] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }
}
