// SPDX-License-Identifier: Apache-2.0

//! Requests about streams, status of buffers, and notifications.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Stream features, as bits (`1 << VIRTIO_SND_PCM_F_*`).
pub mod feature {
    /// The driver does not kick; the device looks by itself.
    pub const MSG_POLLING: u32 = 1 << 2;
    /// Under-runs and over-runs are notified.
    pub const EVT_XRUNS: u32 = 1 << 4;
    /// Every feature that the specification defines.
    pub const DEFINED: u32 = 0b1_1111;
}

/// A request about one stream, jack or control element: `virtio_snd_pcm_hdr`,
/// `virtio_snd_jack_hdr`, `virtio_snd_ctl_hdr`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ItemRequest {
    /// Request code.
    pub code: U32,
    /// Index of the item.
    pub id: U32,
}

/// `virtio_snd_pcm_set_params`, after its request code.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SetParams {
    /// Request code.
    pub code: U32,
    /// Index of the stream.
    pub stream_id: U32,
    /// Bytes of the driver's buffer.
    pub buffer_bytes: U32,
    /// Bytes of a period.
    pub period_bytes: U32,
    /// Selected features.
    pub features: U32,
    /// Samples per frame.
    pub channels: u8,
    /// Number of the format.
    pub format: u8,
    /// Number of the rate.
    pub rate: u8,
    /// Zero.
    pub padding: u8,
}

/// `virtio_snd_pcm_status`: the end of every buffer of the tx and rx queues.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PcmStatus {
    /// `VIRTIO_SND_S_*`.
    pub status: U32,
    /// Bytes that the device has still to play after this buffer, or has recorded beyond it.
    pub latency_bytes: U32,
}

impl PcmStatus {
    /// Bytes on the wire.
    pub const SIZE: usize = 8;
}

/// `virtio_snd_event`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Event {
    /// `VIRTIO_SND_EVT_*`.
    pub code: U32,
    /// Index of the jack or stream.
    pub data: U32,
}

impl Event {
    /// Bytes on the wire, of every kind of notification.
    pub const SIZE: usize = 8;

    /// A notification about a jack or stream.
    #[must_use]
    pub fn new(code: u32, data: u32) -> Self {
        Self {
            code: U32::new(code),
            data: U32::new(data),
        }
    }

    /// `virtio_snd_ctl_event`: the same size, with the data cut in two.
    #[must_use]
    pub fn control(id: u16, mask: u16) -> Self {
        let mut data = [0; 4];
        let (low, high) = data.split_at_mut(2);
        low.copy_from_slice(U16::new(id).as_bytes());
        high.copy_from_slice(U16::new(mask).as_bytes());
        Self {
            code: U32::new(super::event::CTL_NOTIFY),
            data: U32::from_bytes(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_specification() {
        assert_eq!(size_of::<ItemRequest>(), 8);
        assert_eq!(size_of::<SetParams>(), 24);
        assert_eq!(size_of::<PcmStatus>(), PcmStatus::SIZE);
        assert_eq!(size_of::<Event>(), Event::SIZE);
    }

    #[test]
    fn a_control_event_has_two_halves() {
        assert_eq!(
            Event::control(0x0102, 1).as_bytes(),
            [0, 0x12, 0, 0, 2, 1, 1, 0]
        );
        assert_eq!(
            Event::new(0x1101, 3).as_bytes(),
            [1, 0x11, 0, 0, 3, 0, 0, 0]
        );
    }

    #[test]
    fn parameters_are_read_field_by_field() {
        let bytes: Vec<u8> = (0..24).collect();
        let set = SetParams::read_from_bytes(&bytes).unwrap();
        assert_eq!(set.stream_id.get(), 0x0706_0504);
        assert_eq!(set.features.get(), 0x1312_1110);
        assert_eq!(
            (set.channels, set.format, set.rate, set.padding),
            (20, 21, 22, 23)
        );
    }
}
