// SPDX-License-Identifier: Apache-2.0

//! Levels of HEVC: what pictures each takes, and how many bits (ITU-T H.265, tables A.8 and A.9).

use super::{EncoderSettings, Tier};
use crate::layout::Size;

struct Limits {
    /// The level times ten.
    level: u8,
    /// Samples of luma in a picture.
    picture: u64,
    /// And in a second.
    second: u64,
    /// Thousands of bits in a second, of the main tier.
    main: u32,
    /// The same of the high one, where there is one.
    high: Option<u32>,
}

const fn limits(level: u8, (picture, second): (u64, u64), main: u32, high: u32) -> Limits {
    Limits {
        level,
        picture,
        second,
        main,
        high: if high == 0 { None } else { Some(high) },
    }
}

const LEVELS: [Limits; 13] = [
    limits(10, (36_864, 552_960), 128, 0),
    limits(20, (122_880, 3_686_400), 1500, 0),
    limits(21, (245_760, 7_372_800), 3000, 0),
    limits(30, (552_960, 16_588_800), 6000, 0),
    limits(31, (983_040, 33_177_600), 10_000, 0),
    limits(40, (2_228_224, 66_846_720), 12_000, 30_000),
    limits(41, (2_228_224, 133_693_440), 20_000, 50_000),
    limits(50, (8_912_896, 267_386_880), 25_000, 100_000),
    limits(51, (8_912_896, 534_773_760), 40_000, 160_000),
    limits(52, (8_912_896, 1_069_547_520), 60_000, 240_000),
    limits(60, (35_651_584, 1_069_547_520), 60_000, 240_000),
    limits(61, (35_651_584, 2_139_095_040), 120_000, 480_000),
    limits(62, (35_651_584, 4_278_190_080), 240_000, 800_000),
];

/// Sides of a coded picture are multiples of this.
const BLOCK: u32 = 8;

impl Limits {
    fn take(&self, size: Size, settings: &EncoderSettings) -> bool {
        let side = |pixels: u32| pixels.checked_next_multiple_of(BLOCK).unwrap_or(pixels);
        let size = Size::new(side(size.width), side(size.height));
        let longest = u64::from(size.width.max(size.height));
        let second = size
            .pixels()
            .saturating_mul(settings.frame_rate.ceil().into());
        let bits = match settings.tier {
            Tier::Main => Some(self.main),
            Tier::High => self.high,
        };
        size.pixels() <= self.picture
            // No picture is all in one row.
            && longest.saturating_mul(longest) <= self.picture.saturating_mul(8)
            && second <= self.second
            && bits.is_some_and(|bits| settings.bitrate / 1000 <= bits)
    }
}

/// The least level, times ten, that will do for such pictures, and is not less than the one that was asked
/// for. Nothing where none will do.
pub(super) fn level(size: Size, settings: &EncoderSettings) -> Option<u8> {
    let least = settings.level.unwrap_or(0);
    let mut high_enough = LEVELS.iter().filter(|limits| limits.level >= least);
    let found = high_enough.find(|limits| limits.take(size, settings));
    found.map(|limits| limits.level)
}

/// Thousands of bits in a second that the high tier of a level takes, where it has one.
pub(super) fn high_tier_rate(level: u8) -> Option<u32> {
    let mut levels = LEVELS.iter();
    levels.find(|limits| limits.level == level)?.high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::FrameRate;

    #[test]
    fn the_least_level_is_found_that_takes_pictures_rate_bits_and_tier() {
        let of = |(width, height), rate, bitrate, tier, level| {
            let settings = EncoderSettings {
                bitrate,
                frame_rate: FrameRate::per_second(rate),
                tier,
                level,
                ..EncoderSettings::default()
            };
            super::level(Size::new(width, height), &settings)
        };
        let full = (1920, 1080);
        assert_eq!(of((176, 144), 15, 100_000, Tier::Main, None), Some(10));
        assert_eq!(of((176, 144), 15, 200_000, Tier::Main, None), Some(20));
        assert_eq!(of(full, 30, 2_000_000, Tier::Main, None), Some(40));
        assert_eq!(of(full, 60, 2_000_000, Tier::Main, None), Some(41));
        assert_eq!(of(full, 30, 25_000_000, Tier::Main, None), Some(50));
        assert_eq!(of(full, 30, 25_000_000, Tier::High, None), Some(40));
        assert_eq!(of((176, 144), 15, 100_000, Tier::High, None), Some(40));
        assert_eq!(
            of((1280, 720), 30, 1_000_000, Tier::Main, Some(51)),
            Some(51)
        );
        assert_eq!(
            of((1280, 720), 30, 1_000_000, Tier::Main, Some(30)),
            Some(31)
        );
        // All in a few rows: that of a square that is as large, but for its longest side.
        assert_eq!(of((4096, 16), 1, 100_000, Tier::Main, None), Some(40));
        assert_eq!(of((8192, 8192), 240, 1000, Tier::Main, None), None);
    }
}
