// SPDX-License-Identifier: Apache-2.0

//! What an encoder can be asked for.

mod frame_rate;
mod hevc;
mod telling;

use serde::{Deserialize, Serialize};

pub use frame_rate::FrameRate;

/// Profiles of H.264 that encoders are asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum H264Profile {
    /// Constrained baseline is what encoders understand by it.
    Baseline,
    /// Main.
    Main,
    /// High.
    High,
}

/// Profiles of HEVC that encoders are asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum HevcProfile {
    /// Main, 8 bit.
    Main,
    /// Main still picture.
    MainStillPicture,
}

/// Profiles of VP8, which its format calls versions, that encoders are asked for. There are four, but
/// `vp8enc` takes the other two for those of more than 8 bits, as they are in VP9, and refuses them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Vp8Profile {
    /// Bicubic reconstruction, the normal loop filter.
    Zero,
    /// Bilinear reconstruction, the simple loop filter: less for a decoder to do.
    One,
}

/// A profile of whichever codec.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Profile {
    /// Of H.264.
    H264(H264Profile),
    /// Of HEVC.
    Hevc(HevcProfile),
    /// Of VP8.
    Vp8(Vp8Profile),
}

impl Profile {
    pub(crate) const fn caps_name(self) -> &'static str {
        match self {
            Self::H264(H264Profile::Baseline) => "constrained-baseline",
            Self::H264(H264Profile::Main) => "main",
            Self::H264(H264Profile::High) => "high",
            Self::Hevc(HevcProfile::Main) => "main",
            Self::Hevc(HevcProfile::MainStillPicture) => "main-still-picture",
            Self::Vp8(Vp8Profile::Zero) => "0",
            Self::Vp8(Vp8Profile::One) => "1",
        }
    }
}

/// Whether the bit rate may vary.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum BitrateMode {
    /// More bits where there is more to see.
    #[default]
    Variable,
    /// The same all the time.
    Constant,
}

/// Tiers of HEVC: how many bits the pictures of a level may have.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Tier {
    /// For most applications.
    #[default]
    Main,
    /// For more bits, from level 4 on.
    High,
}

/// Tools of H.264 that an encoder may use. Profiles that do not have them forbid them as well, and so may
/// the element's configuration.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct H264Tools {
    /// Arithmetic coding (CABAC); else CAVLC.
    pub arithmetic: bool,
    /// Transforms of 8 by 8 samples beside those of 4 by 4.
    pub large_transform: bool,
}

impl Default for H264Tools {
    fn default() -> Self {
        Self {
            arithmetic: true,
            large_transform: true,
        }
    }
}

/// How to encode.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EncoderSettings {
    /// Bits per second.
    pub bitrate: u32,
    /// Whether that may vary.
    pub mode: BitrateMode,
    /// Pictures per second: what the bit rate is reckoned with, and the stream's header says.
    pub frame_rate: FrameRate,
    /// At most so many pictures from a key picture to the next; 0 for only where asked.
    pub key_interval: u32,
    /// The profile, or what the encoder likes best.
    pub profile: Option<Profile>,
    /// The level times ten (31 is 3.1), or the least that will do.
    pub level: Option<u8>,
    /// Of HEVC.
    pub tier: Tier,
    /// Of H.264.
    pub tools: H264Tools,
    /// Pictures that refer to later ones (B), between two that do not, at most; 0: as many as the
    /// element's configuration says.
    pub b_pictures: u32,
    /// The finest and the coarsest quantizer, in the codec's own numbers; nothing: the element's.
    pub quantizers: Option<(u32, u32)>,
}

impl Default for EncoderSettings {
    fn default() -> Self {
        Self {
            bitrate: 2_000_000,
            mode: BitrateMode::default(),
            frame_rate: FrameRate::per_second(30),
            key_interval: 250,
            profile: None,
            level: None,
            tier: Tier::default(),
            tools: H264Tools::default(),
            b_pictures: 0,
            quantizers: None,
        }
    }
}
