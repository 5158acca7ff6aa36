// SPDX-License-Identifier: GPL-2.0
/*
 * What programs ask of buffers, events and the codec's course. Two queues a file
 * are more than videobuf2's own ioctl functions know, and those of v4l2-mem2mem
 * are not in every distribution's kernel.
 */

#include <linux/pci.h>
#include <media/v4l2-ioctl.h>

#include "driver.h"

static struct vb2_queue *vv_queue_of(struct vv_session *session, u32 type)
{
	return &session->lanes[vv_side_of(type)].queue;
}

static int vv_querycap(struct file *file, void *priv,
		       struct v4l2_capability *cap)
{
	struct vv_device *vv = vv_session_of(file)->vv;

	strscpy(cap->driver, KBUILD_MODNAME, sizeof(cap->driver));
	strscpy(cap->card, vv->node.name, sizeof(cap->card));
	snprintf(cap->bus_info, sizeof(cap->bus_info), "%s:%s",
		 dev_is_pci(vv->dma_dev) ? "PCI" : "platform",
		 dev_name(vv->dma_dev));
	return 0;
}

/* ---- buffers ---- */

/* Capture buffers lie behind the others in what mmap() takes. */
static void vv_offsets_raise(struct v4l2_buffer *b)
{
	u32 plane;

	if (V4L2_TYPE_IS_OUTPUT(b->type) || b->memory != V4L2_MEMORY_MMAP)
		return;
	for (plane = 0; plane < b->length; plane++)
		b->m.planes[plane].m.mem_offset += VV_OUT_OFFSET;
}

/* Without buffers there is no stream. */
static void vv_stream_keep(struct vv_session *session)
{
	if (!vb2_is_busy(&session->lanes[VV_IN].queue) &&
	    !vb2_is_busy(&session->lanes[VV_OUT].queue))
		vv_stream_close(session);
}

static int vv_reqbufs(struct file *file, void *priv,
		      struct v4l2_requestbuffers *request)
{
	struct vv_session *session = vv_session_of(file);
	int err = 0;

	mutex_lock(&session->lock);
	if (request->count)
		err = vv_stream_open(session);
	if (!err)
		err = vb2_reqbufs(vv_queue_of(session, request->type), request);
	vv_stream_keep(session);
	mutex_unlock(&session->lock);
	return err;
}

static int vv_create_bufs(struct file *file, void *priv,
			  struct v4l2_create_buffers *create)
{
	struct vv_session *session = vv_session_of(file);
	int err = 0;

	mutex_lock(&session->lock);
	if (create->count)
		err = vv_stream_open(session);
	if (!err)
		err = vb2_create_bufs(vv_queue_of(session, create->format.type),
				      create);
	vv_stream_keep(session);
	mutex_unlock(&session->lock);
	return err;
}

static int vv_querybuf(struct file *file, void *priv, struct v4l2_buffer *b)
{
	struct vv_session *session = vv_session_of(file);
	int err;

	mutex_lock(&session->lock);
	err = vb2_querybuf(vv_queue_of(session, b->type), b);
	mutex_unlock(&session->lock);
	if (!err)
		vv_offsets_raise(b);
	return err;
}

static int vv_qbuf(struct file *file, void *priv, struct v4l2_buffer *b)
{
	struct vv_session *session = vv_session_of(file);
	int err;

	mutex_lock(&session->lock);
	err = vb2_qbuf(vv_queue_of(session, b->type), NULL, b);
	mutex_unlock(&session->lock);
	if (!err)
		vv_offsets_raise(b);
	return err;
}

static int vv_dqbuf(struct file *file, void *priv, struct v4l2_buffer *b)
{
	struct vv_session *session = vv_session_of(file);
	int err;

	mutex_lock(&session->lock);
	err = vb2_dqbuf(vv_queue_of(session, b->type), b,
			file->f_flags & O_NONBLOCK);
	mutex_unlock(&session->lock);
	if (!err)
		vv_offsets_raise(b);
	return err;
}

static int vv_prepare_buf(struct file *file, void *priv, struct v4l2_buffer *b)
{
	struct vv_session *session = vv_session_of(file);
	int err;

	mutex_lock(&session->lock);
	err = vb2_prepare_buf(vv_queue_of(session, b->type), NULL, b);
	mutex_unlock(&session->lock);
	if (!err)
		vv_offsets_raise(b);
	return err;
}

static int vv_expbuf(struct file *file, void *priv,
		     struct v4l2_exportbuffer *export)
{
	struct vv_session *session = vv_session_of(file);
	int err;

	mutex_lock(&session->lock);
	err = vb2_expbuf(vv_queue_of(session, export->type), export);
	mutex_unlock(&session->lock);
	return err;
}

static int vv_streamon(struct file *file, void *priv, enum v4l2_buf_type type)
{
	struct vv_session *session = vv_session_of(file);
	int err;

	mutex_lock(&session->lock);
	err = vb2_streamon(vv_queue_of(session, type), type);
	mutex_unlock(&session->lock);
	return err;
}

static int vv_streamoff(struct file *file, void *priv, enum v4l2_buf_type type)
{
	struct vv_session *session = vv_session_of(file);
	int err;

	mutex_lock(&session->lock);
	err = vb2_streamoff(vv_queue_of(session, type), type);
	mutex_unlock(&session->lock);
	return err;
}

/* ---- events and the course of decoding and encoding ---- */

static int vv_subscribe_event(struct v4l2_fh *fh,
			      const struct v4l2_event_subscription *sub)
{
	struct vv_session *session = container_of(fh, struct vv_session, fh);

	switch (sub->type) {
	case V4L2_EVENT_EOS:
		return v4l2_event_subscribe(fh, sub, 2, NULL);
	case V4L2_EVENT_SOURCE_CHANGE:
		if (session->vv->encoder)
			return -EINVAL;
		return v4l2_src_change_event_subscribe(fh, sub);
	}
	return v4l2_ctrl_subscribe_event(fh, sub);
}

static int vv_course(struct file *file, bool stop)
{
	struct vv_session *session = vv_session_of(file);
	int err;

	mutex_lock(&session->lock);
	err = stop ? vv_flow_stop(session) : vv_flow_start(session);
	mutex_unlock(&session->lock);
	return err;
}

static int vv_try_decoder_cmd(struct file *file, void *priv,
			      struct v4l2_decoder_cmd *cmd)
{
	if (cmd->cmd != V4L2_DEC_CMD_START && cmd->cmd != V4L2_DEC_CMD_STOP)
		return -EINVAL;
	cmd->flags = 0;
	if (cmd->cmd == V4L2_DEC_CMD_START) {
		cmd->start.speed = 0;
		cmd->start.format = V4L2_DEC_START_FMT_NONE;
	} else {
		cmd->stop.pts = 0;
	}
	return 0;
}

static int vv_decoder_cmd(struct file *file, void *priv,
			  struct v4l2_decoder_cmd *cmd)
{
	int err = vv_try_decoder_cmd(file, priv, cmd);

	return err ?: vv_course(file, cmd->cmd == V4L2_DEC_CMD_STOP);
}

static int vv_try_encoder_cmd(struct file *file, void *priv,
			      struct v4l2_encoder_cmd *cmd)
{
	if (cmd->cmd != V4L2_ENC_CMD_START && cmd->cmd != V4L2_ENC_CMD_STOP)
		return -EINVAL;
	cmd->flags = 0;
	return 0;
}

static int vv_encoder_cmd(struct file *file, void *priv,
			  struct v4l2_encoder_cmd *cmd)
{
	int err = vv_try_encoder_cmd(file, priv, cmd);

	return err ?: vv_course(file, cmd->cmd == V4L2_ENC_CMD_STOP);
}

#define VV_COMMON_IOCTLS						\
	.vidioc_querycap = vv_querycap,					\
	.vidioc_enum_fmt_vid_cap = vv_enum_format,			\
	.vidioc_enum_fmt_vid_out = vv_enum_format,			\
	.vidioc_enum_framesizes = vv_enum_sizes,			\
	.vidioc_g_fmt_vid_cap_mplane = vv_g_format,			\
	.vidioc_g_fmt_vid_out_mplane = vv_g_format,			\
	.vidioc_try_fmt_vid_cap_mplane = vv_try_format,			\
	.vidioc_try_fmt_vid_out_mplane = vv_try_format,			\
	.vidioc_s_fmt_vid_cap_mplane = vv_s_format,			\
	.vidioc_s_fmt_vid_out_mplane = vv_s_format,			\
	.vidioc_g_selection = vv_g_selection,				\
	.vidioc_s_selection = vv_s_selection,				\
	.vidioc_reqbufs = vv_reqbufs,					\
	.vidioc_create_bufs = vv_create_bufs,				\
	.vidioc_querybuf = vv_querybuf,					\
	.vidioc_qbuf = vv_qbuf,						\
	.vidioc_dqbuf = vv_dqbuf,					\
	.vidioc_prepare_buf = vv_prepare_buf,				\
	.vidioc_expbuf = vv_expbuf,					\
	.vidioc_streamon = vv_streamon,					\
	.vidioc_streamoff = vv_streamoff,				\
	.vidioc_log_status = v4l2_ctrl_log_status,			\
	.vidioc_subscribe_event = vv_subscribe_event,			\
	.vidioc_unsubscribe_event = v4l2_event_unsubscribe

const struct v4l2_ioctl_ops vv_decoder_ioctls = {
	VV_COMMON_IOCTLS,
	.vidioc_try_decoder_cmd = vv_try_decoder_cmd,
	.vidioc_decoder_cmd = vv_decoder_cmd,
};

const struct v4l2_ioctl_ops vv_encoder_ioctls = {
	VV_COMMON_IOCTLS,
	.vidioc_enum_frameintervals = vv_enum_intervals,
	.vidioc_g_parm = vv_g_parm,
	.vidioc_s_parm = vv_s_parm,
	.vidioc_try_encoder_cmd = vv_try_encoder_cmd,
	.vidioc_encoder_cmd = vv_encoder_cmd,
};
