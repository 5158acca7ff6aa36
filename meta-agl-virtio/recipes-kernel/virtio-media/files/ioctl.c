// SPDX-License-Identifier: GPL-2.0
/* What the driver answers itself, buffers above all, and the table of all. */

#include <linux/pci.h>

#include "virtio_media.h"

static int virtio_media_querycap(struct file *file, void *priv,
				 struct v4l2_capability *cap)
{
	struct virtio_media *media = virtio_media_session(file)->media;

	strscpy(cap->driver, KBUILD_MODNAME, sizeof(cap->driver));
	strscpy(cap->card, media->card, sizeof(cap->card));
	snprintf(cap->bus_info, sizeof(cap->bus_info), "%s:%s",
		 dev_is_pci(media->dma_dev) ? "PCI" : "platform",
		 dev_name(media->dma_dev));
	return 0;
}

/* A camera's buffers are those of the session that has asked for some. */
static int virtio_media_own(struct virtio_media_session *session,
			    struct virtio_media_queue *queue)
{
	return queue->session && queue->session != session ? -EBUSY : 0;
}

/* After buffers were asked for: who has none owns nothing. */
static void virtio_media_settle(struct virtio_media_session *session,
				struct virtio_media_queue *queue)
{
	if (!session->output && !vb2_is_busy(&queue->vb2))
		queue->session = NULL;
}

static int virtio_media_reqbufs(struct file *file, void *priv,
				struct v4l2_requestbuffers *arg)
{
	struct virtio_media_session *session = virtio_media_session(file);
	struct virtio_media_queue *queue = virtio_media_queue_of(session, arg->type);
	struct v4l2_requestbuffers none = {};
	int err;

	if (!queue)
		return -EINVAL;
	mutex_lock(&queue->lock);
	err = virtio_media_own(session, queue);
	if (err)
		goto out_unlock;
	queue->session = session;
	err = vb2_reqbufs(&queue->vb2, arg);
	if (!err && !arg->count && queue->device_slots) {
		none.type = arg->type;
		none.memory = virtio_media_memory(queue);
		virtio_media_ioctl(session, VIDIOC_REQBUFS, &none);
		queue->device_slots = 0;
	}
	virtio_media_settle(session, queue);
out_unlock:
	mutex_unlock(&queue->lock);
	return err;
}

static int virtio_media_create_bufs(struct file *file, void *priv,
				    struct v4l2_create_buffers *arg)
{
	struct virtio_media_session *session = virtio_media_session(file);
	struct virtio_media_queue *queue =
		virtio_media_queue_of(session, arg->format.type);
	int err;

	if (!queue)
		return -EINVAL;
	mutex_lock(&queue->lock);
	err = arg->count ? virtio_media_own(session, queue) : 0;
	if (err)
		goto out_unlock;
	if (arg->count)
		queue->session = session;
	err = vb2_create_bufs(&queue->vb2, arg);
	virtio_media_settle(session, queue);
out_unlock:
	mutex_unlock(&queue->lock);
	return err;
}

/* Where mmap() finds the buffers of a codec's second queue. */
static void virtio_media_move_offsets(struct virtio_media_session *session,
				      struct virtio_media_queue *queue,
				      struct v4l2_buffer *arg)
{
	unsigned int i;

	if (queue == session->output || !session->output ||
	    arg->memory != V4L2_MEMORY_MMAP)
		return;
	if (!V4L2_TYPE_IS_MULTIPLANAR(arg->type)) {
		arg->m.offset += VIRTIO_MEDIA_CAPTURE_OFFSET;
		return;
	}
	for (i = 0; i < arg->length; i++)
		arg->m.planes[i].m.mem_offset += VIRTIO_MEDIA_CAPTURE_OFFSET;
}

static int virtio_media_querybuf(struct file *file, void *priv,
				 struct v4l2_buffer *arg)
{
	struct virtio_media_session *session = virtio_media_session(file);
	struct virtio_media_queue *queue = virtio_media_queue_of(session, arg->type);
	int err;

	if (!queue)
		return -EINVAL;
	mutex_lock(&queue->lock);
	err = vb2_querybuf(&queue->vb2, arg);
	mutex_unlock(&queue->lock);
	if (!err)
		virtio_media_move_offsets(session, queue, arg);
	return err;
}

static int virtio_media_with_buffer(struct file *file, struct v4l2_buffer *arg,
				    int (*run)(struct vb2_queue *q,
					       struct file *file,
					       struct v4l2_buffer *arg))
{
	struct virtio_media_session *session = virtio_media_session(file);
	struct virtio_media_queue *queue = virtio_media_queue_of(session, arg->type);
	int err;

	if (!queue)
		return -EINVAL;
	mutex_lock(&queue->lock);
	err = virtio_media_own(session, queue);
	if (!err)
		err = run(&queue->vb2, file, arg);
	mutex_unlock(&queue->lock);
	if (!err)
		virtio_media_move_offsets(session, queue, arg);
	return err;
}

static int virtio_media_do_prepare(struct vb2_queue *q, struct file *file,
				   struct v4l2_buffer *arg)
{
	return vb2_prepare_buf(q, NULL, arg);
}

static int virtio_media_do_qbuf(struct vb2_queue *q, struct file *file,
				struct v4l2_buffer *arg)
{
	return vb2_qbuf(q, NULL, arg);
}

static int virtio_media_do_dqbuf(struct vb2_queue *q, struct file *file,
				 struct v4l2_buffer *arg)
{
	return vb2_dqbuf(q, arg, file->f_flags & O_NONBLOCK);
}

static int virtio_media_prepare_buf(struct file *file, void *priv,
				    struct v4l2_buffer *arg)
{
	return virtio_media_with_buffer(file, arg, virtio_media_do_prepare);
}

static int virtio_media_qbuf(struct file *file, void *priv, struct v4l2_buffer *arg)
{
	return virtio_media_with_buffer(file, arg, virtio_media_do_qbuf);
}

static int virtio_media_dqbuf(struct file *file, void *priv, struct v4l2_buffer *arg)
{
	return virtio_media_with_buffer(file, arg, virtio_media_do_dqbuf);
}

static int virtio_media_expbuf(struct file *file, void *priv,
			       struct v4l2_exportbuffer *arg)
{
	struct virtio_media_session *session = virtio_media_session(file);
	struct virtio_media_queue *queue = virtio_media_queue_of(session, arg->type);
	int err;

	if (!queue)
		return -EINVAL;
	mutex_lock(&queue->lock);
	err = virtio_media_own(session, queue);
	if (!err)
		err = vb2_expbuf(&queue->vb2, arg);
	mutex_unlock(&queue->lock);
	return err;
}

static int virtio_media_streaming(struct file *file, enum v4l2_buf_type type,
				  int (*run)(struct vb2_queue *q,
					     enum v4l2_buf_type type))
{
	struct virtio_media_session *session = virtio_media_session(file);
	struct virtio_media_queue *queue = virtio_media_queue_of(session, type);
	int err;

	if (!queue)
		return -EINVAL;
	mutex_lock(&queue->lock);
	err = virtio_media_own(session, queue);
	if (!err)
		err = run(&queue->vb2, type);
	mutex_unlock(&queue->lock);
	return err;
}

static int virtio_media_streamon(struct file *file, void *priv,
				 enum v4l2_buf_type type)
{
	return virtio_media_streaming(file, type, vb2_streamon);
}

static int virtio_media_streamoff(struct file *file, void *priv,
				  enum v4l2_buf_type type)
{
	return virtio_media_streaming(file, type, vb2_streamoff);
}

static int virtio_media_decoder_cmd(struct file *file, void *priv,
				    struct v4l2_decoder_cmd *arg)
{
	struct virtio_media_session *session = virtio_media_session(file);
	int err;

	err = virtio_media_ioctl(session, VIDIOC_DECODER_CMD, arg);
	if (!err && arg->cmd == V4L2_DEC_CMD_START)
		vb2_clear_last_buffer_dequeued(&session->capture->vb2);
	return err;
}

static int virtio_media_try_decoder_cmd(struct file *file, void *priv,
					struct v4l2_decoder_cmd *arg)
{
	return virtio_media_ioctl(virtio_media_session(file),
				  VIDIOC_TRY_DECODER_CMD, arg);
}

static int virtio_media_encoder_cmd(struct file *file, void *priv,
				    struct v4l2_encoder_cmd *arg)
{
	struct virtio_media_session *session = virtio_media_session(file);
	int err;

	err = virtio_media_ioctl(session, VIDIOC_ENCODER_CMD, arg);
	if (!err && arg->cmd == V4L2_ENC_CMD_START)
		vb2_clear_last_buffer_dequeued(&session->capture->vb2);
	return err;
}

static int virtio_media_try_encoder_cmd(struct file *file, void *priv,
					struct v4l2_encoder_cmd *arg)
{
	return virtio_media_ioctl(virtio_media_session(file),
				  VIDIOC_TRY_ENCODER_CMD, arg);
}

const struct v4l2_ioctl_ops virtio_media_ioctl_ops = {
	.vidioc_querycap = virtio_media_querycap,

	.vidioc_enum_fmt_vid_cap = virtio_media_enum_fmt,
	.vidioc_enum_fmt_vid_out = virtio_media_enum_fmt,
	.vidioc_g_fmt_vid_cap = virtio_media_g_fmt,
	.vidioc_g_fmt_vid_cap_mplane = virtio_media_g_fmt,
	.vidioc_g_fmt_vid_out = virtio_media_g_fmt,
	.vidioc_g_fmt_vid_out_mplane = virtio_media_g_fmt,
	.vidioc_s_fmt_vid_cap = virtio_media_s_fmt,
	.vidioc_s_fmt_vid_cap_mplane = virtio_media_s_fmt,
	.vidioc_s_fmt_vid_out = virtio_media_s_fmt,
	.vidioc_s_fmt_vid_out_mplane = virtio_media_s_fmt,
	.vidioc_try_fmt_vid_cap = virtio_media_try_fmt,
	.vidioc_try_fmt_vid_cap_mplane = virtio_media_try_fmt,
	.vidioc_try_fmt_vid_out = virtio_media_try_fmt,
	.vidioc_try_fmt_vid_out_mplane = virtio_media_try_fmt,
	.vidioc_enum_framesizes = virtio_media_enum_framesizes,
	.vidioc_enum_frameintervals = virtio_media_enum_frameintervals,
	.vidioc_g_parm = virtio_media_g_parm,
	.vidioc_s_parm = virtio_media_s_parm,
	.vidioc_enum_input = virtio_media_enum_input,
	.vidioc_g_input = virtio_media_g_input,
	.vidioc_s_input = virtio_media_s_input,
	.vidioc_g_selection = virtio_media_g_selection,
	.vidioc_s_selection = virtio_media_s_selection,

	.vidioc_reqbufs = virtio_media_reqbufs,
	.vidioc_create_bufs = virtio_media_create_bufs,
	.vidioc_querybuf = virtio_media_querybuf,
	.vidioc_prepare_buf = virtio_media_prepare_buf,
	.vidioc_qbuf = virtio_media_qbuf,
	.vidioc_dqbuf = virtio_media_dqbuf,
	.vidioc_expbuf = virtio_media_expbuf,
	.vidioc_streamon = virtio_media_streamon,
	.vidioc_streamoff = virtio_media_streamoff,

	.vidioc_decoder_cmd = virtio_media_decoder_cmd,
	.vidioc_try_decoder_cmd = virtio_media_try_decoder_cmd,
	.vidioc_encoder_cmd = virtio_media_encoder_cmd,
	.vidioc_try_encoder_cmd = virtio_media_try_encoder_cmd,

#ifdef VIRTIO_MEDIA_QUERYCTRL
	.vidioc_queryctrl = virtio_media_queryctrl,
#endif
	.vidioc_query_ext_ctrl = virtio_media_query_ext_ctrl,
	.vidioc_querymenu = virtio_media_querymenu,
	.vidioc_g_ext_ctrls = virtio_media_g_ext_ctrls,
	.vidioc_s_ext_ctrls = virtio_media_s_ext_ctrls,
	.vidioc_try_ext_ctrls = virtio_media_try_ext_ctrls,
	.vidioc_subscribe_event = virtio_media_subscribe,
	.vidioc_unsubscribe_event = virtio_media_unsubscribe,
};
