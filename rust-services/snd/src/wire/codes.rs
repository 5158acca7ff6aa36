// SPDX-License-Identifier: Apache-2.0

//! Numbers: requests, answers, events, queues, positions.

/// Feature bit `VIRTIO_SND_F_CTLS`: the device has control elements.
pub const F_CTLS: u64 = 1 << 0;

/// Most positions a channel map can name (`VIRTIO_SND_CHMAP_MAX_SIZE`).
pub const CHMAP_MAX_POSITIONS: usize = 18;

/// Indices of the virtqueues (5.14.2).
pub mod queue {
    /// Requests of the driver.
    pub const CONTROL: usize = 0;
    /// Notifications to the driver.
    pub const EVENT: usize = 1;
    /// Frames of output streams.
    pub const TX: usize = 2;
    /// Frames of input streams.
    pub const RX: usize = 3;
    /// The specification's names, by index.
    pub const NAMES: [&str; 4] = ["control", "event", "tx", "rx"];
}

/// Types of notifications (`VIRTIO_SND_EVT_*`).
pub mod event {
    /// A jack was plugged.
    pub const JACK_CONNECTED: u32 = 0x1000;
    /// A jack was pulled.
    pub const JACK_DISCONNECTED: u32 = 0x1001;
    /// An output stream ran dry, or an input stream ran over.
    pub const PCM_XRUN: u32 = 0x1101;
    /// A control element has changed.
    pub const CTL_NOTIFY: u32 = 0x1200;
}

/// Reasons in a control element's notification, as bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum NotifyMask {
    /// The value has changed.
    Value = 1 << 0,
}

/// What the driver wants (`VIRTIO_SND_R_*`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "the specification's own names")]
pub enum Request {
    JackInfo,
    JackRemap,
    PcmInfo,
    PcmSetParams,
    PcmPrepare,
    PcmRelease,
    PcmStart,
    PcmStop,
    ChmapInfo,
    CtlInfo,
    CtlEnumItems,
    CtlRead,
    CtlWrite,
    CtlTlvRead,
    CtlTlvWrite,
    CtlTlvCommand,
}

impl Request {
    /// The request of this code.
    #[must_use]
    pub const fn from_wire(code: u32) -> Option<Self> {
        Some(match code {
            0x001 => Self::JackInfo,
            0x002 => Self::JackRemap,
            0x100 => Self::PcmInfo,
            0x101 => Self::PcmSetParams,
            0x102 => Self::PcmPrepare,
            0x103 => Self::PcmRelease,
            0x104 => Self::PcmStart,
            0x105 => Self::PcmStop,
            0x200 => Self::ChmapInfo,
            0x300 => Self::CtlInfo,
            0x301 => Self::CtlEnumItems,
            0x302 => Self::CtlRead,
            0x303 => Self::CtlWrite,
            0x304 => Self::CtlTlvRead,
            0x305 => Self::CtlTlvWrite,
            0x306 => Self::CtlTlvCommand,
            _ => return None,
        })
    }
}

impl Request {
    /// Whether it needs [`F_CTLS`].
    #[must_use]
    pub const fn is_about_controls(self) -> bool {
        matches!(
            self,
            Self::CtlInfo
                | Self::CtlEnumItems
                | Self::CtlRead
                | Self::CtlWrite
                | Self::CtlTlvRead
                | Self::CtlTlvWrite
                | Self::CtlTlvCommand
        )
    }
}

/// The device's answer to a request or a buffer (`VIRTIO_SND_S_*`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Status {
    /// Done.
    Ok = 0x8000,
    /// The message is malformed, names what does not exist, or comes at the wrong time.
    BadMsg = 0x8001,
    /// The device does not do that.
    NotSupp = 0x8002,
    /// It was tried and failed.
    IoErr = 0x8003,
}

/// Channel positions (`VIRTIO_SND_CHMAP_*`) by their names in the specification.
pub mod position {
    const NAMES: [&str; 37] = [
        "NONE", "NA", "MONO", "FL", "FR", "RL", "RR", "FC", "LFE", "SL", "SR", "RC", "FLC", "FRC",
        "RLC", "RRC", "FLW", "FRW", "FLH", "FCH", "FRH", "TC", "TFL", "TFR", "TFC", "TRL", "TRR",
        "TRC", "TFLC", "TFRC", "TSL", "TSR", "LLFE", "RLFE", "BC", "BLC", "BRC",
    ];

    /// All names.
    #[must_use]
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// The number of the position of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<u8> {
        let index = NAMES
            .iter()
            .position(|known| known.eq_ignore_ascii_case(name))?;
        u8::try_from(index).ok()
    }

    /// The usual order of channels: that of ALSA for 1 to 8 of them.
    #[must_use]
    pub fn standard(channels: u8) -> &'static [&'static str] {
        match channels {
            1 => &["MONO"],
            2 => &["FL", "FR"],
            3 => &["FL", "FR", "FC"],
            4 => &["FL", "FR", "RL", "RR"],
            5 => &["FL", "FR", "RL", "RR", "FC"],
            6 => &["FL", "FR", "RL", "RR", "FC", "LFE"],
            7 => &["FL", "FR", "RL", "RR", "FC", "LFE", "RC"],
            8 => &["FL", "FR", "RL", "RR", "FC", "LFE", "SL", "SR"],
            _ => &[],
        }
    }
}
