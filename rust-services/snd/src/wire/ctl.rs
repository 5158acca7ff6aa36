// SPDX-License-Identifier: Apache-2.0

//! Control elements (5.14.6.9).

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::info::Direction;

/// Bytes of `virtio_snd_ctl_value`.
pub const CTL_VALUE_BYTES: usize = 512;
/// Bytes of `virtio_snd_ctl_info` as the specification writes it: nothing between the members.
pub const CTL_INFO_PACKED: usize = 92;
/// Bytes of it as C compilers lay it out, Linux's among them: the union is aligned to 8.
const CTL_INFO_ALIGNED: usize = 96;
const NAME_AT: usize = 24;
/// Bytes of an element's name, the terminating zero included.
const NAME_BYTES: usize = 44;

/// Access rights, as bits (`1 << VIRTIO_SND_CTL_ACCESS_*`).
pub mod access {
    /// The value can be read.
    pub const READ: u32 = 1 << 0;
    /// The value can be written.
    pub const WRITE: u32 = 1 << 1;
    /// There is metadata to read.
    pub const TLV_READ: u32 = 1 << 4;
}

/// Metadata in ALSA's form.
pub mod tlv {
    use zerocopy::IntoBytes;
    use zerocopy::little_endian::U32;

    const DB_SCALE: u32 = 1;
    const MUTE_AT_MINIMUM: u32 = 1 << 16;

    /// A scale on which each step is the same number of decibels (`SNDRV_CTL_TLVT_DB_SCALE`), and
    /// the lowest value is silence.
    #[must_use]
    pub fn decibel_scale(minimum_centibels: i32, step_centibels: u16) -> Vec<u8> {
        let words = [
            DB_SCALE,
            8,
            u32::from_ne_bytes(minimum_centibels.to_ne_bytes()),
            u32::from(step_centibels) | MUTE_AT_MINIMUM,
        ];
        words
            .iter()
            .flat_map(|word| U32::new(*word).as_bytes().to_vec())
            .collect()
    }
}

/// What an element is for (`VIRTIO_SND_CTL_ROLE_*`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum CtlRole {
    /// None of the others.
    Undefined = 0,
    /// A volume.
    Volume = 1,
    /// A mute switch.
    Mute = 2,
}

/// Type of an element's value (`VIRTIO_SND_CTL_TYPE_*`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum CtlType {
    /// 0 or 1.
    Boolean = 0,
    /// A number in a range.
    Integer = 1,
    /// One of several items.
    Enumerated = 3,
}

/// What an element's value can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CtlRange {
    /// 0 or 1.
    Boolean,
    /// From `min` to `max` in steps of 1.
    Integer {
        /// Least value.
        min: u32,
        /// Greatest value.
        max: u32,
    },
    /// Below `items`.
    Enumerated {
        /// How many there are.
        items: u32,
    },
}

impl CtlRange {
    /// The type on the wire.
    #[must_use]
    pub const fn kind(self) -> CtlType {
        match self {
            Self::Boolean => CtlType::Boolean,
            Self::Integer { .. } => CtlType::Integer,
            Self::Enumerated { .. } => CtlType::Enumerated,
        }
    }

    /// Whether `value` is one.
    #[must_use]
    pub const fn contains(self, value: u32) -> bool {
        match self {
            Self::Boolean => value <= 1,
            Self::Integer { min, max } => min <= value && value <= max,
            Self::Enumerated { items } => value < items,
        }
    }
}

/// `virtio_snd_ctl_info`, in whichever layout the driver asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CtlInfo {
    /// Function group node.
    pub hda_fn_nid: u32,
    /// What it is for.
    pub role: CtlRole,
    /// Which way the frames go that it acts on.
    pub direction: Direction,
    /// Values that it can have.
    pub range: CtlRange,
    /// Access rights.
    pub access: u32,
    /// Tells elements of the same name apart.
    pub index: u32,
    /// Name in ASCII, at most 43 bytes.
    pub name: String,
}

impl CtlInfo {
    /// The structure for a driver that takes it to have `size` bytes. The text of the
    /// specification has no implicit padding (the value is at 68, the whole is 92 bytes); Linux
    /// compiles it with the value at 72 and the whole at 96.
    #[must_use]
    pub fn to_bytes(&self, size: usize) -> [u8; CTL_INFO_ALIGNED] {
        let mut bytes = [0; CTL_INFO_ALIGNED];
        let role = match self.role {
            CtlRole::Undefined => 0,
            role => (role as u32) << 1 | self.direction as u32,
        };
        let head = [
            self.hda_fn_nid,
            role,
            self.range.kind() as u32,
            self.access,
            1,
            self.index,
        ];
        put_words(&mut bytes, 0, &head);
        let name = bytes
            .get_mut(NAME_AT..NAME_AT.saturating_add(NAME_BYTES))
            .unwrap_or_default();
        // The last byte stays the terminating zero.
        for (to, from) in name
            .iter_mut()
            .take(NAME_BYTES.saturating_sub(1))
            .zip(self.name.bytes())
        {
            *to = from;
        }
        let value_at = if size >= CTL_INFO_ALIGNED { 72 } else { 68 };
        match self.range {
            CtlRange::Boolean => put_words(&mut bytes, value_at, &[0, 1, 1]),
            CtlRange::Integer { min, max } => put_words(&mut bytes, value_at, &[min, max, 1]),
            CtlRange::Enumerated { items } => put_words(&mut bytes, value_at, &[items]),
        }
        bytes
    }
}

fn put_words(bytes: &mut [u8], at: usize, words: &[u32]) {
    let place = bytes.get_mut(at..).unwrap_or_default();
    for (to, word) in place.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(U32::new(*word).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> CtlInfo {
        CtlInfo {
            hda_fn_nid: 3,
            role: CtlRole::Volume,
            direction: Direction::Input,
            range: CtlRange::Integer { min: 0, max: 100 },
            access: access::READ | access::WRITE | access::TLV_READ,
            index: 2,
            name: "Capture Volume".into(),
        }
    }

    #[test]
    fn the_value_lies_where_the_size_says() {
        let packed = volume().to_bytes(CTL_INFO_PACKED);
        assert_eq!(packed[68..80], [0, 0, 0, 0, 100, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(packed[80..], [0; 16]);
        let aligned = volume().to_bytes(96);
        assert_eq!(
            aligned[68..84],
            [0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 1, 0, 0, 0]
        );
    }

    #[test]
    fn the_head_and_the_name_come_out_as_the_driver_reads_them() {
        let bytes = volume().to_bytes(96);
        assert_eq!(
            bytes[..24],
            [
                3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0x13, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0
            ]
        );
        assert_eq!(&bytes[24..39], b"Capture Volume\0");
        let long = CtlInfo {
            name: "x".repeat(60),
            ..volume()
        }
        .to_bytes(96);
        assert_eq!((long[66], long[67]), (b'x', 0));
    }

    #[test]
    fn a_scale_is_what_alsa_calls_one() {
        // From -50 dB in steps of 0.5 dB, mute at the minimum.
        assert_eq!(
            tlv::decibel_scale(-5000, 50),
            [1, 0, 0, 0, 8, 0, 0, 0, 0x78, 0xec, 0xff, 0xff, 50, 0, 1, 0]
        );
    }

    #[test]
    fn values_out_of_range_are_told() {
        for (range, good, bad) in [
            (CtlRange::Boolean, 1, 2),
            (CtlRange::Integer { min: 0, max: 100 }, 100, 101),
            (CtlRange::Enumerated { items: 3 }, 2, 3),
        ] {
            assert!(range.contains(good) && !range.contains(bad));
        }
    }
}
