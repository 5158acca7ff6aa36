// SPDX-License-Identifier: Apache-2.0

//! The device in TOML.
//!
//! ```toml
//! [devices.vault]
//! type = "rpmb"
//! capacity_kib = 1024                     # a multiple of 128, up to 16384
//! path = "/var/lib/agl-virtio/ivi.rpmb"   # the store
//! ```

use std::path::PathBuf;

use agl_virtio_service::config::{Problems, Validate};
use serde::Deserialize;

use crate::engine::Limits;
use crate::store::{Shape, size_of_store};
use crate::wire::{BLOCK_SIZE, BLOCKS_PER_UNIT, MOST_UNITS};

/// Blocks that an address of 16 bits can name.
const ADDRESSES: u64 = 1 << 16;
/// KiB in a unit of capacity.
const UNIT_KIB: u32 = 128;

/// Where the store lies.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// In a file.
    #[default]
    File,
    /// In the RPMB partition of an eMMC of the host.
    Mmc,
}

/// A part of a host's RPMB partition that is one guest's.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RegionConfig {
    /// Its first block of 256 bytes.
    pub first_block: u16,
    /// The file with the 32 bytes of the host's key, which is programmed already.
    pub host_key: PathBuf,
}

/// The device's configuration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the store lies.
    pub backend: BackendKind,
    /// The file of the store, or the character device of the partition (`/dev/mmcblk0rpmb`).
    pub path: PathBuf,
    /// Capacity in KiB: a multiple of 128, up to 16384. A store keeps the one it was made with.
    pub capacity_kib: u32,
    /// Most blocks of 256 bytes that one write may have; 0 for as many as there are.
    pub max_write_blocks: u8,
    /// Most blocks that one read may have; 0 for as many as there are.
    pub max_read_blocks: u8,
    /// The guest's part of a partition that several guests share. Without it the partition is the
    /// guest's alone: frames go through as they are.
    pub region: Option<RegionConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: BackendKind::File,
            path: PathBuf::from("agl-virtio-rpmb/guest.rpmb"),
            capacity_kib: UNIT_KIB,
            max_write_blocks: 32,
            max_read_blocks: 0,
            region: None,
        }
    }
}

impl Config {
    /// Whether a running guest finds its store in that of `other`: the same blocks, and as many in a
    /// request. Nothing can change under it.
    pub(crate) fn is_same_device(&self, other: &Self) -> bool {
        self == other
    }
}

impl Validate for Config {
    fn validate(&self, problems: &mut Problems) {
        let most = UNIT_KIB.saturating_mul(MOST_UNITS.into());
        problems.range("capacity_kib", &self.capacity_kib, UNIT_KIB..=most);
        problems.require(
            self.capacity_kib % UNIT_KIB == 0,
            "capacity_kib",
            format!("{} KiB are not whole units", self.capacity_kib),
            "a multiple of 128",
        );
        problems.require(
            !self.path.as_os_str().is_empty(),
            "path",
            "names nothing",
            "the file of the store, such as /var/lib/agl-virtio/ivi.rpmb",
        );
        problems.require(
            self.region.is_none() || self.backend == BackendKind::Mmc,
            "region",
            "is a part of an eMMC",
            "backend = \"mmc\", or no region",
        );
        problems.require(
            self.region.is_none() || self.max_write_blocks != 0,
            "max_write_blocks",
            "a region has room for writes of a known size only",
            "a number from 1 to 255",
        );
        if let Some(region) = &self.region {
            let size = size_of_store(&self.shape(), BLOCK_SIZE as u64);
            let blocks = size.checked_div(BLOCK_SIZE as u64).unwrap_or(0);
            let most = ADDRESSES.saturating_sub(blocks);
            problems.require(
                u64::from(region.first_block).saturating_add(blocks) <= ADDRESSES,
                "region.first_block",
                format!(
                    "the region needs {blocks} blocks, and a partition has {ADDRESSES} at most"
                ),
                format!("at most {most}, or a smaller capacity_kib"),
            );
        }
    }
}

impl Config {
    /// What the configuration space says.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let units = self.capacity_kib.checked_div(UNIT_KIB).unwrap_or(0);
        Limits {
            capacity_units: u8::try_from(units).unwrap_or(MOST_UNITS),
            most_written: self.max_write_blocks,
            most_read: self.max_read_blocks,
        }
    }

    /// What the store is like.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let limits = self.limits();
        let all = u32::from(limits.capacity_units).saturating_mul(BLOCKS_PER_UNIT);
        Shape {
            capacity_units: limits.capacity_units,
            most_written: match limits.most_written {
                0 => u16::try_from(all).unwrap_or(u16::MAX),
                most => most.into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &Config) -> Vec<String> {
        let mut problems = Problems::new();
        config.validate(&mut problems);
        let list = problems.into_list();
        list.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_default_needs_no_file() {
        let config = Config::default();
        assert_eq!(problems(&config), Vec::<String>::new());
        assert_eq!(config.limits().capacity_units, 1);
        assert_eq!(config.shape().most_written, 32);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let of = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            problems(&config)
        };
        assert_eq!(of(&|config| config.capacity_kib = 0), ["capacity_kib"]);
        assert_eq!(of(&|config| config.capacity_kib = 129), ["capacity_kib"]);
        assert_eq!(
            of(&|config| config.capacity_kib = 16 * 1024 + 128),
            ["capacity_kib"]
        );
        assert_eq!(of(&|config| config.path = PathBuf::new()), ["path"]);
        let region = RegionConfig {
            first_block: 0,
            host_key: "key".into(),
        };
        let shared = |config: &mut Config| {
            config.region = Some(region.clone());
            config.max_write_blocks = 0;
        };
        assert_eq!(of(&shared), ["region", "max_write_blocks"]);
        let at = |first_block, capacity_kib| {
            let region = region.clone();
            move |config: &mut Config| {
                config.backend = BackendKind::Mmc;
                config.capacity_kib = capacity_kib;
                config.region = Some(RegionConfig {
                    first_block,
                    ..region.clone()
                });
            }
        };
        // 512 blocks, two records of 33, and one more: 579 of 65,536.
        assert_eq!(of(&at(64957, 128)), Vec::<String>::new());
        assert_eq!(of(&at(64958, 128)), ["region.first_block"]);
        assert_eq!(of(&at(0, 16 * 1024)), ["region.first_block"]);
    }

    #[test]
    fn the_largest_device_has_blocks_that_its_addresses_can_name() {
        let config = Config {
            capacity_kib: 16 * 1024,
            max_write_blocks: 0,
            ..Config::default()
        };
        assert_eq!(config.limits().capacity_units, 0x80);
        assert_eq!(config.shape().most_written, 65535);
    }

    #[test]
    fn a_guest_keeps_its_store_whatever_the_file_says_now() {
        let config = Config::default();
        assert!(config.is_same_device(&Config::default()));
        let path = PathBuf::from("another.rpmb");
        let other = Config {
            path,
            ..Config::default()
        };
        assert!(!config.is_same_device(&other));
        let other = Config {
            max_write_blocks: 1,
            ..Config::default()
        };
        assert!(!config.is_same_device(&other));
    }
}
