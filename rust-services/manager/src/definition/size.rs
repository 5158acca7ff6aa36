// SPDX-License-Identifier: Apache-2.0
//! Amounts of memory as people write them.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// An amount of memory: whole mebibytes, written `"512M"` or `"2G"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    mebibytes: u32,
}

impl Size {
    /// So many mebibytes.
    #[must_use]
    pub const fn mebibytes(mebibytes: u32) -> Self {
        Self { mebibytes }
    }

    /// In mebibytes.
    #[must_use]
    pub const fn in_mebibytes(self) -> u32 {
        self.mebibytes
    }

    /// In bytes.
    #[must_use]
    pub fn in_bytes(self) -> u64 {
        u64::from(self.mebibytes).saturating_mul(1 << 20)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "{text:?} is no amount of memory, expected a number with M or G, such as \"512M\""
            )
        };
        let (digits, unit) = match (text.strip_suffix('M'), text.strip_suffix('G')) {
            (Some(digits), _) => (digits, 1),
            (None, Some(digits)) => (digits, 1024),
            (None, None) => return Err(wrong()),
        };
        let number: u32 = digits.parse().map_err(|_| wrong())?;
        let mebibytes = number.checked_mul(unit).ok_or_else(wrong)?;
        Ok(Self { mebibytes })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.mebibytes)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[0-9]+[MG]$",
            "description": "An amount of memory, such as 512M or 2G."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_their_unit_and_never_overflow() {
        for (text, mebibytes) in [("512M", Some(512)), ("2G", Some(2048)), ("0M", Some(0))] {
            assert_eq!(text.parse().ok().map(Size::in_mebibytes), mebibytes);
        }
        for wrong in [
            "",
            "M",
            "512",
            "-1M",
            "1.5G",
            "4194304G",
            "99999999999M",
            "2g",
        ] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
        assert_eq!(Size::mebibytes(2).in_bytes(), 2_097_152);
    }
}
