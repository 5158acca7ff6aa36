// SPDX-License-Identifier: GPL-2.0
/* Formats, sizes, rates, inputs, cut-outs: the device has them, and is asked. */

#include "virtio_media.h"

#define FORWARD(name, cmd, payload)					\
int virtio_media_##name(struct file *file, void *priv, payload arg)	\
{									\
	return virtio_media_ioctl(virtio_media_session(file), cmd, arg); \
}

FORWARD(enum_fmt, VIDIOC_ENUM_FMT, struct v4l2_fmtdesc *)
FORWARD(g_fmt, VIDIOC_G_FMT, struct v4l2_format *)
FORWARD(try_fmt, VIDIOC_TRY_FMT, struct v4l2_format *)
FORWARD(enum_framesizes, VIDIOC_ENUM_FRAMESIZES, struct v4l2_frmsizeenum *)
FORWARD(enum_frameintervals, VIDIOC_ENUM_FRAMEINTERVALS, struct v4l2_frmivalenum *)
FORWARD(g_parm, VIDIOC_G_PARM, struct v4l2_streamparm *)
FORWARD(enum_input, VIDIOC_ENUMINPUT, struct v4l2_input *)
FORWARD(g_input, VIDIOC_G_INPUT, unsigned int *)
FORWARD(g_selection, VIDIOC_G_SELECTION, struct v4l2_selection *)
FORWARD(s_selection, VIDIOC_S_SELECTION, struct v4l2_selection *)

int virtio_media_s_input(struct file *file, void *priv, unsigned int input)
{
	return virtio_media_ioctl(virtio_media_session(file), VIDIOC_S_INPUT, &input);
}

int virtio_media_s_fmt(struct file *file, void *priv, struct v4l2_format *arg)
{
	struct virtio_media_session *session = virtio_media_session(file);
	struct virtio_media_queue *queue = virtio_media_queue_of(session, arg->type);
	struct virtio_media *media = session->media;
	int err;

	if (!queue)
		return -EINVAL;
	mutex_lock(&queue->lock);
	err = vb2_is_busy(&queue->vb2) ? -EBUSY :
		virtio_media_ioctl(session, VIDIOC_S_FMT, arg);
	mutex_unlock(&queue->lock);
	if (err || session->output)
		return err;
	mutex_lock(&media->settings_lock);
	media->format = *arg;
	mutex_unlock(&media->settings_lock);
	return 0;
}

int virtio_media_s_parm(struct file *file, void *priv, struct v4l2_streamparm *arg)
{
	struct virtio_media_session *session = virtio_media_session(file);
	struct virtio_media *media = session->media;
	int err;

	err = virtio_media_ioctl(session, VIDIOC_S_PARM, arg);
	if (err || session->output)
		return err;
	mutex_lock(&media->settings_lock);
	media->parm = *arg;
	mutex_unlock(&media->settings_lock);
	return 0;
}
