// SPDX-License-Identifier: Apache-2.0
//! The bytes of virtio-snd messages (VIRTIO 1.4, 5.14.6), little endian throughout.

/// Request codes (5.14.6).
pub mod request {
    #![allow(
        missing_docs,
        reason = "each is VIRTIO_SND_R_ and the name in the text"
    )]
    pub const JACK_INFO: u32 = 1;
    pub const JACK_REMAP: u32 = 2;
    pub const PCM_INFO: u32 = 0x100;
    pub const PCM_SET_PARAMS: u32 = 0x101;
    pub const PCM_PREPARE: u32 = 0x102;
    pub const PCM_RELEASE: u32 = 0x103;
    pub const PCM_START: u32 = 0x104;
    pub const PCM_STOP: u32 = 0x105;
    pub const CHMAP_INFO: u32 = 0x200;
    pub const CTL_INFO: u32 = 0x300;
    pub const CTL_ENUM_ITEMS: u32 = 0x301;
    pub const CTL_READ: u32 = 0x302;
    pub const CTL_WRITE: u32 = 0x303;
    pub const CTL_TLV_READ: u32 = 0x304;
    pub const CTL_TLV_WRITE: u32 = 0x305;
    pub const CTL_TLV_COMMAND: u32 = 0x306;
}

/// Status codes (5.14.6).
pub mod status {
    #![allow(
        missing_docs,
        reason = "each is VIRTIO_SND_S_ and the name in the text"
    )]
    pub const OK: u32 = 0x8000;
    pub const BAD_MSG: u32 = 0x8001;
    pub const NOT_SUPP: u32 = 0x8002;
    pub const IO_ERR: u32 = 0x8003;
}

/// Event codes (5.14.6).
pub mod event {
    #![allow(
        missing_docs,
        reason = "each is VIRTIO_SND_EVT_ and the name in the text"
    )]
    pub const JACK_CONNECTED: u32 = 0x1000;
    pub const JACK_DISCONNECTED: u32 = 0x1001;
    pub const PCM_PERIOD_ELAPSED: u32 = 0x1100;
    pub const PCM_XRUN: u32 = 0x1101;
    pub const CTL_NOTIFY: u32 = 0x1200;
}

/// Sample formats (5.14.6.6.2), the ones that tests use by name.
pub mod format {
    #![allow(
        missing_docs,
        reason = "each is VIRTIO_SND_PCM_FMT_ and the name in the text"
    )]
    pub const U8: u8 = 4;
    pub const S16: u8 = 5;
    pub const S24: u8 = 15;
    pub const S32: u8 = 17;
    pub const FLOAT: u8 = 19;
}

/// Frame rates (5.14.6.6.2), the ones that tests use by name.
pub mod rate {
    #![allow(
        missing_docs,
        reason = "each is VIRTIO_SND_PCM_RATE_ and the name in the text"
    )]
    pub const R44100: u8 = 6;
    pub const R48000: u8 = 7;
    pub const R96000: u8 = 10;
}

/// Directions of a stream.
pub mod direction {
    /// Playback.
    pub const OUTPUT: u8 = 0;
    /// Capture.
    pub const INPUT: u8 = 1;
}

/// Bytes of one `virtio_snd_jack_info`.
pub const JACK_INFO_SIZE: u32 = 24;
/// Bytes of one `virtio_snd_pcm_info`.
pub const PCM_INFO_SIZE: u32 = 32;
/// Bytes of one `virtio_snd_chmap_info`.
pub const CHMAP_INFO_SIZE: u32 = 24;
/// Bytes of one `virtio_snd_ctl_info` as the text lays it out; Linux asks for 96.
pub const CTL_INFO_SIZE: u32 = 92;
/// Bytes of one `virtio_snd_pcm_status`.
pub const PCM_STATUS_SIZE: u32 = 8;
/// Bytes of one event.
pub const EVENT_SIZE: u32 = 8;

/// A message of little-endian u32 words.
#[must_use]
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `virtio_snd_query_info`: ask for `count` items of `size` bytes from `start` on.
#[must_use]
pub fn query_info(code: u32, start: u32, count: u32, size: u32) -> Vec<u8> {
    words(&[code, start, count, size])
}

/// `virtio_snd_pcm_hdr`: a request about one stream.
#[must_use]
pub fn pcm(code: u32, stream: u32) -> Vec<u8> {
    words(&[code, stream])
}

/// The parameters of a stream (`virtio_snd_pcm_set_params` without its header).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Size of the guest's buffer in bytes.
    pub buffer_bytes: u32,
    /// Size of a period in bytes.
    pub period_bytes: u32,
    /// Selected features.
    pub features: u32,
    /// Channels.
    pub channels: u8,
    /// Sample format by number.
    pub format: u8,
    /// Frame rate by number.
    pub rate: u8,
}

impl Params {
    /// Stereo, 16 bits, 48 kHz: periods of 10 ms (1,920 bytes), sixteen of them.
    pub const CD_LIKE: Self = Self {
        buffer_bytes: 16 * 1920,
        period_bytes: 1920,
        features: 0,
        channels: 2,
        format: format::S16,
        rate: rate::R48000,
    };

    /// The whole request for a stream.
    #[must_use]
    pub fn request(&self, stream: u32) -> Vec<u8> {
        let mut bytes = words(&[
            request::PCM_SET_PARAMS,
            stream,
            self.buffer_bytes,
            self.period_bytes,
            self.features,
        ]);
        bytes.extend_from_slice(&[self.channels, self.format, self.rate, 0]);
        bytes
    }
}

/// `virtio_snd_ctl_hdr`: a request about one control element, with what follows it.
#[must_use]
pub fn ctl(code: u32, control: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = words(&[code, control]);
    bytes.extend_from_slice(rest);
    bytes
}

/// The u32 at `at`; 0 beyond the end, so that a short answer shows as a wrong value.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|word| word.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// The u64 at `at`; 0 beyond the end.
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// One `virtio_snd_pcm_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcmInfo {
    /// Function group node.
    pub hda_fn_nid: u32,
    /// Feature bits.
    pub features: u32,
    /// Format bits.
    pub formats: u64,
    /// Rate bits.
    pub rates: u64,
    /// [`direction`].
    pub direction: u8,
    /// Fewest channels.
    pub channels_min: u8,
    /// Most channels.
    pub channels_max: u8,
    /// Must be zeroes.
    pub padding: [u8; 5],
}

impl PcmInfo {
    /// Read one; `None` where there are fewer than 32 bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            hda_fn_nid: u32_at(bytes, 0),
            features: u32_at(bytes, 4),
            formats: u64_at(bytes, 8),
            rates: u64_at(bytes, 16),
            direction: *bytes.get(24)?,
            channels_min: *bytes.get(25)?,
            channels_max: *bytes.get(26)?,
            padding: bytes.get(27..32)?.try_into().ok()?,
        })
    }
}

/// One `virtio_snd_jack_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JackInfo {
    /// Function group node.
    pub hda_fn_nid: u32,
    /// Feature bits (REMAP: bit 0).
    pub features: u32,
    /// Pin configuration default register.
    pub hda_reg_defconf: u32,
    /// Pin capabilities register.
    pub hda_reg_caps: u32,
    /// Whether something is plugged in.
    pub connected: bool,
}

impl JackInfo {
    /// Read one; `None` where there are fewer than 24 bytes, connected is neither 0 nor 1, or
    /// the padding is not zero.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let connected = match bytes.get(16..24)? {
            [0, 0, 0, 0, 0, 0, 0, 0] => false,
            [1, 0, 0, 0, 0, 0, 0, 0] => true,
            _ => return None,
        };
        Some(Self {
            hda_fn_nid: u32_at(bytes, 0),
            features: u32_at(bytes, 4),
            hda_reg_defconf: u32_at(bytes, 8),
            hda_reg_caps: u32_at(bytes, 12),
            connected,
        })
    }
}

/// One `virtio_snd_chmap_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChmapInfo {
    /// Function group node.
    pub hda_fn_nid: u32,
    /// [`direction`].
    pub direction: u8,
    /// How many positions are valid.
    pub channels: u8,
    /// The channels' positions.
    pub positions: [u8; 18],
}

impl ChmapInfo {
    /// Read one; `None` where there are fewer than 24 bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            hda_fn_nid: u32_at(bytes, 0),
            direction: *bytes.get(4)?,
            channels: *bytes.get(5)?,
            positions: bytes.get(6..24)?.try_into().ok()?,
        })
    }
}

/// One `virtio_snd_ctl_info`, the value's range left as bytes: its place depends on the size
/// that was asked for (68 in 92 bytes, 72 in Linux's 96).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtlInfo {
    /// Function group node.
    pub hda_fn_nid: u32,
    /// Role of the element.
    pub role: u32,
    /// Type: 0 boolean, 1 integer, 2 integer64, 3 enumerated, 4 bytes, 5 IEC 958.
    pub kind: u32,
    /// Access bits.
    pub access: u32,
    /// Values in it.
    pub count: u32,
    /// Tells elements of one name apart.
    pub index: u32,
    /// Its name, up to the first zero.
    pub name: String,
    /// The range: min, max, step, or the number of items.
    pub value: Vec<u8>,
}

impl CtlInfo {
    /// Read one of `bytes.len()` bytes; `None` where there are fewer than 92.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < CTL_INFO_SIZE as usize {
            return None;
        }
        let at = if bytes.len() >= 96 { 72 } else { 68 };
        let name = bytes.get(24..68)?;
        let name = name.split(|&byte| byte == 0).next()?;
        Some(Self {
            hda_fn_nid: u32_at(bytes, 0),
            role: u32_at(bytes, 4),
            kind: u32_at(bytes, 8),
            access: u32_at(bytes, 12),
            count: u32_at(bytes, 16),
            index: u32_at(bytes, 20),
            name: String::from_utf8_lossy(name).into_owned(),
            value: bytes.get(at..at + 24)?.to_vec(),
        })
    }
}
