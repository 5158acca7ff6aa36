// SPDX-License-Identifier: Apache-2.0

//! The configuration space, and what the `*_INFO` requests ask and get.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::codes::CHMAP_MAX_POSITIONS;

/// Which way frames go (`VIRTIO_SND_D_*`).
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, Eq, Hash, PartialEq)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Direction {
    /// From the driver to the device: playback.
    #[default]
    Output = 0,
    /// From the device to the driver: capture.
    Input = 1,
}

/// `virtio_snd_config`, the configuration space.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Config {
    /// How many jacks there are.
    pub jacks: U32,
    /// How many streams.
    pub streams: U32,
    /// How many channel maps.
    pub chmaps: U32,
    /// How many control elements.
    pub controls: U32,
}

/// `virtio_snd_query_info`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct QueryInfo {
    /// Request code.
    pub code: U32,
    /// First item asked about.
    pub start_id: U32,
    /// How many items.
    pub count: U32,
    /// Bytes from one item to the next in the answer.
    pub size: U32,
}

/// `virtio_snd_jack_info`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    PartialEq,
    Unaligned,
)]
#[repr(C)]
pub struct JackInfo {
    /// Function group node: Linux makes it the number of the PCM device.
    pub hda_fn_nid: U32,
    /// Feature bits.
    pub features: U32,
    /// Pin default configuration (HDA 7.3.3.31).
    pub hda_reg_defconf: U32,
    /// Pin capabilities (HDA 7.3.4.9).
    pub hda_reg_caps: U32,
    /// 1 when something is plugged in.
    pub connected: u8,
    /// Zero.
    pub padding: [u8; 7],
}

/// `virtio_snd_pcm_info`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    PartialEq,
    Unaligned,
)]
#[repr(C)]
pub struct PcmInfo {
    /// Function group node: Linux makes it the number of the PCM device.
    pub hda_fn_nid: U32,
    /// Feature bits.
    pub features: U32,
    /// Format bits.
    pub formats: U64,
    /// Rate bits.
    pub rates: U64,
    /// [`Direction`].
    pub direction: u8,
    /// Fewest channels.
    pub channels_min: u8,
    /// Most channels.
    pub channels_max: u8,
    /// Zero.
    pub padding: [u8; 5],
}

/// `virtio_snd_chmap_info`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    PartialEq,
    Unaligned,
)]
#[repr(C)]
pub struct ChmapInfo {
    /// Function group node: belongs to the streams with the same.
    pub hda_fn_nid: U32,
    /// [`Direction`].
    pub direction: u8,
    /// How many of the positions count.
    pub channels: u8,
    /// Position of each channel.
    pub positions: [u8; CHMAP_MAX_POSITIONS],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_specification() {
        assert_eq!(size_of::<Config>(), 16);
        assert_eq!(size_of::<QueryInfo>(), 16);
        assert_eq!(size_of::<JackInfo>(), 24);
        assert_eq!(size_of::<PcmInfo>(), 32);
        assert_eq!(size_of::<ChmapInfo>(), 24);
    }

    #[test]
    fn a_stream_comes_out_as_the_driver_reads_it() {
        let info = PcmInfo {
            hda_fn_nid: U32::new(2),
            formats: U64::new(1 << 5),
            rates: U64::new(1 << 7),
            direction: Direction::Input as u8,
            channels_min: 1,
            channels_max: 8,
            ..PcmInfo::default()
        };
        let bytes = info.as_bytes();
        assert_eq!(bytes[0], 2);
        assert_eq!(bytes[8], 0x20);
        assert_eq!(bytes[16], 0x80);
        assert_eq!(bytes[24..], [1, 1, 8, 0, 0, 0, 0, 0]);
    }
}
