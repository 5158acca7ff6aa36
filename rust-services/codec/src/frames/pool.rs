// SPDX-License-Identifier: Apache-2.0

//! A pool of GStreamer's whose buffers lie in [`Frames`].
//!
//! GStreamer's own pool for pictures would take an allocator, but one cannot be written without unsafe
//! code. Where the frames are used up, or too small, buffers are ordinary ones.

use gst::glib;
use gst::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_video::{BUFFER_POOL_OPTION_VIDEO_META, VideoFrameFlags, VideoInfo, VideoMeta};

use super::Frames;

glib::wrapper! {
    /// See the module.
    pub(crate) struct FramePool(ObjectSubclass<imp::FramePool>)
        @extends gst::BufferPool, gst::Object;
}

impl FramePool {
    /// A pool that nobody uses yet.
    pub(crate) fn new(frames: Frames) -> Self {
        let pool: Self = glib::Object::new();
        let _ = pool.imp().frames.set(frames);
        pool
    }
}

mod imp {
    use std::sync::{Mutex, OnceLock, PoisonError};

    use super::*;

    #[derive(Default)]
    pub(crate) struct FramePool {
        pub(super) frames: OnceLock<Frames>,
        /// How pictures lie in a buffer.
        shape: Mutex<Option<VideoInfo>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for FramePool {
        const NAME: &'static str = "AglVirtioFramePool";
        type Type = super::FramePool;
        type ParentType = gst::BufferPool;
    }

    impl ObjectImpl for FramePool {}
    impl GstObjectImpl for FramePool {}

    impl BufferPoolImpl for FramePool {
        fn options() -> &'static [&'static str] {
            static OPTIONS: OnceLock<[&str; 1]> = OnceLock::new();
            OPTIONS.get_or_init(|| [BUFFER_POOL_OPTION_VIDEO_META.as_str()])
        }

        fn set_config(&self, config: &mut gst::BufferPoolConfigRef) -> bool {
            let Some((Some(caps), size, least, most)) = config.params() else {
                return false;
            };
            let Ok(info) = VideoInfo::from_caps(&caps) else {
                return false;
            };
            let needed = u32::try_from(info.size()).unwrap_or(u32::MAX).max(size);
            config.set_params(Some(&caps), needed, least, most);
            *self.shape.lock().unwrap_or_else(PoisonError::into_inner) = Some(info);
            self.parent_set_config(config)
        }

        fn alloc_buffer(
            &self,
            _params: Option<&gst::BufferPoolAcquireParams>,
        ) -> Result<gst::Buffer, gst::FlowError> {
            let shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
            let info = shape.clone().ok_or(gst::FlowError::NotNegotiated)?;
            drop(shape);
            let frame = self.frames.get().and_then(|all| all.take(info.size()));
            let mut buffer = match frame {
                Some(frame) => gst::Buffer::from_mut_slice(frame),
                None => gst::Buffer::with_size(info.size()).map_err(|_| gst::FlowError::Error)?,
            };
            let Some(writable) = buffer.get_mut() else {
                return Err(gst::FlowError::Error);
            };
            let meta = VideoMeta::add_full(
                writable,
                VideoFrameFlags::empty(),
                info.format(),
                info.width(),
                info.height(),
                info.offset(),
                info.stride(),
            );
            meta.map_err(|_| gst::FlowError::Error)?;
            Ok(buffer)
        }
    }
}
