// SPDX-License-Identifier: Apache-2.0

//! How many pictures a second has: a fraction, as V4L2 and cameras have it (30000/1001).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::v4l2::Fraction;

/// Above this, a term of a fraction is nobody's wish but noise, and is rounded.
const MOST_TERM: u32 = 1_000_000;
/// What is rounded is told in thousandths.
const ROUNDED: u32 = 1000;

/// Pictures in a second. In lowest terms, and never 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    pictures: u32,
    seconds: u32,
}

impl Rate {
    /// Of which nobody has said how many.
    pub const USUAL: Self = Self::per_second(30);
    /// Fewest that are offered.
    pub const LEAST: Self = Self::per_second(1);
    /// Most that are offered.
    pub const MOST: Self = Self::per_second(240);

    /// So many in one second, one at least.
    #[must_use]
    pub const fn per_second(pictures: u32) -> Self {
        Self {
            pictures: if pictures == 0 { 1 } else { pictures },
            seconds: 1,
        }
    }

    /// So many pictures in so many seconds; nothing where either is 0.
    #[must_use]
    pub fn new(pictures: u32, seconds: u32) -> Option<Self> {
        let common = common_divisor(pictures, seconds);
        let (pictures, seconds) = (pictures.checked_div(common)?, seconds.checked_div(common)?);
        if pictures == 0 || seconds == 0 {
            return None;
        }
        if pictures.max(seconds) > MOST_TERM {
            let thousandths = u64::from(pictures)
                .saturating_mul(ROUNDED.into())
                .checked_div(seconds.into())?;
            let thousandths = u32::try_from(thousandths).unwrap_or(u32::MAX);
            let whole = thousandths.checked_div(ROUNDED)?;
            return if whole >= ROUNDED {
                Some(Self::per_second(whole))
            } else {
                Self::new(thousandths.max(1), ROUNDED)
            };
        }
        Some(Self { pictures, seconds })
    }

    /// From the time between two pictures, as V4L2 has it; nothing where that is none.
    #[must_use]
    pub fn of_interval(interval: Fraction) -> Option<Self> {
        Self::new(interval.denominator, interval.numerator)
    }

    /// From one picture to the next, as V4L2 has it.
    #[must_use]
    pub fn interval(self) -> Fraction {
        Fraction {
            numerator: self.seconds,
            denominator: self.pictures,
        }
    }

    /// Above the line.
    #[must_use]
    pub fn pictures(self) -> u32 {
        self.pictures
    }

    /// Below it.
    #[must_use]
    pub fn seconds(self) -> u32 {
        self.seconds
    }

    /// As a number.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.pictures) / f64::from(self.seconds.max(1))
    }

    /// Pictures that a second has at most.
    #[must_use]
    pub fn ceil(self) -> u32 {
        self.pictures.div_ceil(self.seconds.max(1))
    }

    /// How many pictures there were until `now`, and when the next one is due.
    #[must_use]
    pub fn tick(self, now: Duration) -> (u64, Duration) {
        let pictures = u128::from(self.pictures.max(1));
        let seconds = u128::from(self.seconds).saturating_mul(1_000_000_000);
        let number = now
            .as_nanos()
            .saturating_mul(pictures)
            .checked_div(seconds)
            .unwrap_or(0);
        let next = number.saturating_add(1).saturating_mul(seconds);
        let next = next.div_ceil(pictures);
        let next = Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX));
        (u64::try_from(number).unwrap_or(u64::MAX), next)
    }
}

fn common_divisor(one: u32, other: u32) -> u32 {
    match one.checked_rem(other) {
        None => one,
        Some(rest) => common_divisor(other, rest),
    }
}

impl Ord for Rate {
    fn cmp(&self, other: &Self) -> Ordering {
        let across = |one: u32, other: u32| u64::from(one).saturating_mul(other.into());
        across(self.pictures, other.seconds).cmp(&across(other.pictures, self.seconds))
    }
}

impl PartialOrd for Rate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds {
            1 => write!(to, "{}", self.pictures),
            seconds => write!(to, "{}/{seconds}", self.pictures),
        }
    }
}

/// A text is no rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is no rate: pictures in a second, such as 30 or \"30000/1001\"")]
pub struct NoRate;

impl FromStr for Rate {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Self, NoRate> {
        let (pictures, seconds) = text.split_once('/').unwrap_or((text, "1"));
        let number = |text: &str| text.trim().parse().map_err(|_| NoRate);
        Self::new(number(pictures)?, number(seconds)?).ok_or(NoRate)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Whole(u32),
            Text(String),
        }

        match Written::deserialize(from)? {
            Written::Whole(pictures) => Self::new(pictures, 1).ok_or(NoRate),
            Written::Text(text) => text.parse(),
        }
        .map_err(D::Error::custom)
    }
}

/// At which rates there are pictures.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rates {
    /// At these, one at least; the first one is the one at first.
    List(Vec<Rate>),
    /// At any between these.
    Range(Rate, Rate),
}

impl Rates {
    /// The one at first.
    #[must_use]
    pub fn first(&self) -> Rate {
        match self {
            Self::List(list) => list.first().copied().unwrap_or(Rate::USUAL),
            Self::Range(least, most) => Rate::USUAL.max(*least).min(*most),
        }
    }

    /// The greatest.
    #[must_use]
    pub fn most(&self) -> Rate {
        match self {
            Self::List(list) => list.iter().copied().max().unwrap_or(Rate::USUAL),
            Self::Range(_, most) => *most,
        }
    }

    /// Those that are not greater; nothing where all are.
    #[must_use]
    pub fn up_to(self, greatest: Rate) -> Option<Self> {
        match self {
            Self::List(mut list) => {
                list.retain(|rate| *rate <= greatest);
                (!list.is_empty()).then_some(Self::List(list))
            }
            Self::Range(least, most) => {
                (least <= greatest).then(|| Self::Range(least, most.min(greatest)))
            }
        }
    }

    /// The one that comes nearest to a wish.
    #[must_use]
    pub fn nearest(&self, wish: Rate) -> Rate {
        let far = |rate: &Rate| (rate.as_f64() - wish.as_f64()).abs();
        match self {
            Self::List(list) => {
                let nearest = list
                    .iter()
                    .min_by(|one, other| far(one).total_cmp(&far(other)));
                nearest.copied().unwrap_or(Rate::USUAL)
            }
            Self::Range(least, most) => wish.max(*least).min(*most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_rate_is_a_fraction_in_lowest_terms() {
        assert_eq!(rate("60000/2002"), rate("30000/1001"));
        assert_eq!(rate("30000/1001").to_string(), "30000/1001");
        assert_eq!(rate("50/2"), Rate::per_second(25));
        assert_eq!(rate("25").to_string(), "25");
        for wrong in ["0", "1/0", "0/0", "-1", "x", "1/2/3", "", "29.97"] {
            assert_eq!(wrong.parse::<Rate>(), Err(NoRate), "{wrong}");
        }
        assert!(rate("30000/1001") < rate("30") && rate("30000/1001") > rate("29"));
        assert_eq!((rate("30000/1001").ceil(), rate("30").ceil()), (30, 30));
    }

    #[test]
    fn a_file_has_it_as_a_number_or_as_a_fraction() {
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error, I64Deserializer, StrDeserializer};

        let text = |text: &'static str| -> Result<Rate, Error> {
            let from: StrDeserializer<'_, Error> = text.into_deserializer();
            Rate::deserialize(from)
        };
        let number = |number: i64| -> Result<Rate, Error> {
            let from: I64Deserializer<Error> = number.into_deserializer();
            Rate::deserialize(from)
        };
        assert_eq!(text("30000/1001"), Ok(rate("30000/1001")));
        assert_eq!(number(30), Ok(Rate::USUAL));
        let said = text("29.97").unwrap_err().to_string();
        assert!(said.contains("30000/1001"), "{said}");
        assert!(number(0).is_err() && number(-1).is_err());
    }

    #[test]
    fn terms_without_sense_are_rounded_to_thousandths() {
        let of = |pictures, seconds| Rate::new(pictures, seconds).unwrap();
        assert_eq!(of(2_999_999_999, 100_000_000), rate("29999/1000"));
        assert_eq!(of(u32::MAX, 1), Rate::per_second(4_294_967));
        assert_eq!(of(1, u32::MAX), rate("1/1000"));
        assert_eq!(of(1_000_000, 999_999), rate("1000000/999999"));
    }

    #[test]
    fn an_interval_is_the_rate_upside_down() {
        let interval = |numerator, denominator| Fraction {
            numerator,
            denominator,
        };
        assert_eq!(rate("30000/1001").interval(), interval(1001, 30000));
        assert_eq!(Rate::of_interval(interval(2, 25)), Some(rate("25/2")));
        assert_eq!(Rate::of_interval(interval(0, 25)), None);
        assert_eq!(Rate::of_interval(interval(1, 0)), None);
    }

    #[test]
    fn ticks_come_at_the_same_instants_for_everybody() {
        let (number, next) = Rate::USUAL.tick(Duration::from_millis(1010));
        assert_eq!(number, 30);
        let after = Rate::USUAL.tick(next);
        assert_eq!(after, (31, Duration::from_nanos(1_066_666_667)));
        let (again, _) = Rate::USUAL.tick(next.saturating_sub(Duration::from_nanos(1)));
        assert_eq!(again, 30);
        // In 1001 seconds, 30000 pictures, and not one more.
        let broken = rate("30000/1001");
        let end = Duration::from_secs(1001);
        assert_eq!(broken.tick(end).0, 30_000);
        let (before, next) = broken.tick(end.saturating_sub(Duration::from_nanos(1)));
        assert_eq!((before, next), (29_999, end));
    }

    #[test]
    fn of_a_list_the_nearest_is_taken_and_of_a_range_any() {
        let list = Rates::List(vec![rate("30000/1001"), rate("30"), rate("15/2")]);
        assert_eq!(list.first(), rate("30000/1001"));
        assert_eq!(list.most(), rate("30"));
        for (wish, got) in [
            ("30", "30"),
            ("299/10", "30000/1001"),
            ("8", "15/2"),
            ("1/1000", "15/2"),
            ("240", "30"),
        ] {
            assert_eq!(list.nearest(rate(wish)), rate(got), "{wish}");
        }
        let range = Rates::Range(rate("5"), rate("60000/1001"));
        assert_eq!(
            (range.first(), range.most()),
            (rate("30"), rate("60000/1001"))
        );
        for (wish, got) in [("60", "60000/1001"), ("1", "5"), ("25/2", "25/2")] {
            assert_eq!(range.nearest(rate(wish)), rate(got), "{wish}");
        }
        assert_eq!(Rates::Range(rate("5"), rate("25")).first(), rate("25"));
    }

    #[test]
    fn rates_that_are_too_great_are_left_out() {
        let list = Rates::List(vec![rate("60"), rate("30"), rate("15")]);
        let some = list.clone().up_to(rate("59"));
        assert_eq!(some, Some(Rates::List(vec![rate("30"), rate("15")])));
        assert_eq!(list.up_to(rate("14")), None);
        let range = Rates::Range(rate("5"), rate("60"));
        let some = range.clone().up_to(rate("59/2"));
        assert_eq!(some, Some(Rates::Range(rate("5"), rate("59/2"))));
        assert_eq!(range.up_to(rate("4")), None);
    }
}
