// SPDX-License-Identifier: Apache-2.0

//! The ioctls of V4L2 by number, as far as a device of ours answers any.

/// An ioctl. Those that are not here have no answer but ENOTTY: QUERYCAP, DQBUF, DQEVENT,
/// LOG_STATUS, G_JPEGCOMP and S_JPEGCOMP by the specification (5.22.6.1.4.4), others because no
/// device of ours has what they are about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "V4L2's own names")]
pub enum Ioctl {
    EnumFmt,
    GFmt,
    SFmt,
    ReqBufs,
    QueryBuf,
    QBuf,
    StreamOn,
    StreamOff,
    GParm,
    SParm,
    EnumInput,
    GCtrl,
    SCtrl,
    QueryCtrl,
    QueryMenu,
    GInput,
    SInput,
    TryFmt,
    GExtCtrls,
    SExtCtrls,
    TryExtCtrls,
    EnumFrameSizes,
    EnumFrameIntervals,
    EncoderCmd,
    TryEncoderCmd,
    SubscribeEvent,
    UnsubscribeEvent,
    CreateBufs,
    PrepareBuf,
    GSelection,
    SSelection,
    DecoderCmd,
    TryDecoderCmd,
    QueryExtCtrl,
}

impl Ioctl {
    /// By its number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            2 => Self::EnumFmt,
            4 => Self::GFmt,
            5 => Self::SFmt,
            8 => Self::ReqBufs,
            9 => Self::QueryBuf,
            15 => Self::QBuf,
            18 => Self::StreamOn,
            19 => Self::StreamOff,
            21 => Self::GParm,
            22 => Self::SParm,
            26 => Self::EnumInput,
            27 => Self::GCtrl,
            28 => Self::SCtrl,
            36 => Self::QueryCtrl,
            37 => Self::QueryMenu,
            38 => Self::GInput,
            39 => Self::SInput,
            64 => Self::TryFmt,
            71 => Self::GExtCtrls,
            72 => Self::SExtCtrls,
            73 => Self::TryExtCtrls,
            74 => Self::EnumFrameSizes,
            75 => Self::EnumFrameIntervals,
            77 => Self::EncoderCmd,
            78 => Self::TryEncoderCmd,
            90 => Self::SubscribeEvent,
            91 => Self::UnsubscribeEvent,
            92 => Self::CreateBufs,
            93 => Self::PrepareBuf,
            94 => Self::GSelection,
            95 => Self::SSelection,
            96 => Self::DecoderCmd,
            97 => Self::TryDecoderCmd,
            103 => Self::QueryExtCtrl,
            _ => return None,
        })
    }
}
