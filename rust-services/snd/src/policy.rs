// SPDX-License-Identifier: Apache-2.0

//! Who is heard how loud: volumes, mutes, and who steps back for whom.
//!
//! Among the output streams of a guest that run, those of lower priority than the highest step back:
//! by their own `DuckLevel`, into silence, or by a pause. A stream that is silenced goes on by its
//! clock. One that is paused keeps its place: its clock stands, and no buffer comes back. virtio-snd
//! has no other way to tell a guest to wait, and a player that waits inside of its kernel takes a
//! clock that stands for a broken card; so a pause is for those who ask for it.

use serde::Deserialize;

/// Steps of a volume: 0 is silence, [`VOLUME_MAX`] is unity, a step is half a decibel.
pub const VOLUME_MAX: u32 = 100;
/// Hundredths of a decibel in a step.
pub const VOLUME_STEP_CB: u16 = 50;
/// Hundredths of a decibel at 0, as the scale has it.
pub const VOLUME_MIN_CB: i32 = -5000;

/// What a stream does while one of higher priority runs.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum StepBack {
    /// It becomes softer by its duck level.
    #[default]
    Duck = 0,
    /// It becomes silent, and goes on by its clock.
    Silence = 1,
    /// It does not step back.
    Never = 2,
    /// It becomes silent, and goes on later where it was.
    Pause = 3,
}

/// What the policy knows of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Voice {
    /// An output stream that is started.
    pub playing: bool,
    /// Higher ones are heard over lower ones.
    pub priority: u32,
    /// What it does for those above it.
    pub step_back: StepBack,
    /// By how many hundredths of a decibel it goes down then; negative.
    pub duck_level: i32,
    /// By how many hundredths of a decibel the manager has it go down for other guests; 0 or less.
    pub duck: i32,
    /// 0 to [`VOLUME_MAX`].
    pub volume: u32,
    /// Not heard at all.
    pub mute: bool,
}

/// The factor for a number of hundredths of a decibel; exactly 1 for 0.
#[must_use]
pub fn from_centibels(centibels: i32) -> f64 {
    if centibels == 0 {
        1.0
    } else {
        10_f64.powf(f64::from(centibels) / 2000.0)
    }
}

/// The factor for a volume.
#[must_use]
pub fn from_volume(volume: u32) -> f64 {
    if volume == 0 {
        return 0.0;
    }
    let below = i32::try_from(VOLUME_MAX.saturating_sub(volume)).unwrap_or(0);
    from_centibels(
        below
            .saturating_mul(i32::from(VOLUME_STEP_CB))
            .saturating_neg(),
    )
}

/// The priority above which a stream needs to be to make others step back: the highest that plays.
#[must_use]
pub fn highest_playing(voices: impl Iterator<Item = Voice>) -> u32 {
    voices
        .filter(|voice| voice.playing)
        .map(|voice| voice.priority)
        .max()
        .unwrap_or(0)
}

/// The gain of a stream while the highest priority that plays is `highest`.
#[must_use]
pub fn gain(voice: &Voice, highest: u32) -> f64 {
    if voice.mute {
        return 0.0;
    }
    let loud = from_volume(voice.volume) * from_centibels(voice.duck.min(0));
    if voice.priority >= highest {
        return loud;
    }
    match voice.step_back {
        StepBack::Duck => loud * from_centibels(voice.duck_level.min(0)),
        StepBack::Silence | StepBack::Pause => 0.0,
        StepBack::Never => loud,
    }
}

/// Whether a stream's clock stands while the highest priority that plays is `highest`.
#[must_use]
pub fn is_paused(voice: &Voice, highest: u32) -> bool {
    voice.step_back == StepBack::Pause && voice.priority < highest
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUSIC: Voice = Voice {
        playing: true,
        priority: 10,
        step_back: StepBack::Duck,
        duck_level: -2000,
        duck: 0,
        volume: VOLUME_MAX,
        mute: false,
    };

    #[test]
    fn the_table_of_who_steps_back() {
        let chime = Voice {
            priority: 40,
            ..MUSIC
        };
        let table: [(&str, Vec<Voice>, f64); 10] = [
            ("alone", vec![MUSIC], 1.0),
            ("beside its equal", vec![MUSIC, MUSIC], 1.0),
            ("under a chime", vec![MUSIC, chime], 0.1),
            (
                "under a chime that does not play",
                vec![
                    MUSIC,
                    Voice {
                        playing: false,
                        ..chime
                    },
                ],
                1.0,
            ),
            ("over something lower", vec![chime, MUSIC], 1.0),
            (
                "silenced",
                vec![
                    Voice {
                        step_back: StepBack::Silence,
                        ..MUSIC
                    },
                    chime,
                ],
                0.0,
            ),
            (
                "paused",
                vec![
                    Voice {
                        step_back: StepBack::Pause,
                        ..MUSIC
                    },
                    chime,
                ],
                0.0,
            ),
            (
                "stubborn",
                vec![
                    Voice {
                        step_back: StepBack::Never,
                        ..MUSIC
                    },
                    chime,
                ],
                1.0,
            ),
            (
                "for another guest",
                vec![Voice {
                    duck: -2000,
                    ..MUSIC
                }],
                0.1,
            ),
            (
                "muted",
                vec![Voice {
                    mute: true,
                    ..MUSIC
                }],
                0.0,
            ),
        ];
        for (what, voices, expected) in table {
            let highest = highest_playing(voices.iter().copied());
            assert!(
                (gain(&voices[0], highest) - expected).abs() < 1e-12,
                "{what}"
            );
            assert_eq!(is_paused(&voices[0], highest), what == "paused", "{what}");
        }
    }

    #[test]
    fn a_volume_is_half_decibels_down_from_exactly_one() {
        assert_eq!(from_volume(VOLUME_MAX).to_bits(), 1.0_f64.to_bits());
        assert_eq!(from_volume(0).to_bits(), 0.0_f64.to_bits());
        assert!((from_volume(60) - 0.1).abs() < 1e-12);
        assert_eq!(
            i32::try_from(VOLUME_MAX).unwrap() * i32::from(VOLUME_STEP_CB),
            -VOLUME_MIN_CB
        );
    }
}
