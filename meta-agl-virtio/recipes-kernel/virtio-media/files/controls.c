// SPDX-License-Identifier: GPL-2.0
/* Controls and V4L2 events: the device has them, and is asked. */

#include <linux/mm.h>
#include <linux/slab.h>

#include "virtio_media.h"

#ifdef VIRTIO_MEDIA_QUERYCTRL
int virtio_media_queryctrl(struct file *file, void *priv, struct v4l2_queryctrl *arg)
{
	return virtio_media_ioctl(virtio_media_session(file), VIDIOC_QUERYCTRL, arg);
}
#endif

int virtio_media_query_ext_ctrl(struct file *file, void *priv,
				struct v4l2_query_ext_ctrl *arg)
{
	return virtio_media_ioctl(virtio_media_session(file),
				  VIDIOC_QUERY_EXT_CTRL, arg);
}

int virtio_media_querymenu(struct file *file, void *priv, struct v4l2_querymenu *arg)
{
	return virtio_media_ioctl(virtio_media_session(file), VIDIOC_QUERYMENU, arg);
}

/* A list of controls, which follows its head. */
static int virtio_media_ext_ctrls(struct virtio_media_session *session,
				  unsigned int cmd, struct v4l2_ext_controls *arg,
				  int (*send)(struct virtio_media_session *session,
					      u32 number,
					      const struct virtio_media_buffers *buffers))
{
	size_t list = array_size(arg->count, sizeof(*arg->controls));
	struct v4l2_ext_control *controls = arg->controls;
	struct virtio_media_buffers buffers = {};
	struct v4l2_ext_controls *payload;
	u32 count = arg->count, i;
	int err;

	/* Values that lie elsewhere would need their pages sent along. */
	for (i = 0; i < count; i++) {
		if (controls[i].size) {
			arg->error_idx = cmd == VIDIOC_S_EXT_CTRLS ? count : i;
			return -EINVAL;
		}
	}
	payload = kvzalloc(size_add(sizeof(*payload), list), GFP_KERNEL);
	if (!payload)
		return -ENOMEM;
	*payload = *arg;
	/* Of no use to the device, and not its business. */
	payload->controls = NULL;
	payload->request_fd = 0;
	if (list)
		memcpy(payload + 1, controls, list);
	buffers.out = payload;
	buffers.out_len = sizeof(*payload) + list;
	buffers.in = payload;
	buffers.in_len = buffers.out_len;
	err = send(session, _IOC_NR(cmd), &buffers);
	arg->error_idx = min(payload->error_idx, count);
	if (list)
		memcpy(controls, payload + 1, list);
	kvfree(payload);
	return err;
}

/* What a camera is to be set to when its device has slept or died. */
static void virtio_media_remember_control(struct virtio_media *media,
					  const struct v4l2_ext_control *control)
{
	unsigned int i;

	for (i = 0; i < media->controls_set; i++)
		if (media->controls[i].id == control->id)
			break;
	if (i == ARRAY_SIZE(media->controls))
		return;
	media->controls[i] = *control;
	media->controls_set = max(media->controls_set, i + 1);
}

void virtio_media_restore_controls(struct virtio_media_session *session)
{
	struct virtio_media *media = session->media;
	unsigned int i;

	mutex_lock(&media->settings_lock);
	/* One by one: a device may have lost one of them. */
	for (i = 0; i < media->controls_set; i++) {
		struct v4l2_ext_control control = media->controls[i];
		struct v4l2_ext_controls list = {
			.count = 1,
			.controls = &control,
		};

		virtio_media_ext_ctrls(session, VIDIOC_S_EXT_CTRLS, &list,
				       virtio_media_command_once);
	}
	mutex_unlock(&media->settings_lock);
}

int virtio_media_g_ext_ctrls(struct file *file, void *priv,
			     struct v4l2_ext_controls *arg)
{
	return virtio_media_ext_ctrls(virtio_media_session(file),
				      VIDIOC_G_EXT_CTRLS, arg, virtio_media_command);
}

int virtio_media_s_ext_ctrls(struct file *file, void *priv,
			     struct v4l2_ext_controls *arg)
{
	struct virtio_media_session *session = virtio_media_session(file);
	struct virtio_media *media = session->media;
	u32 i;
	int err;

	err = virtio_media_ext_ctrls(session, VIDIOC_S_EXT_CTRLS, arg,
				     virtio_media_command);
	if (err || session->output)
		return err;
	mutex_lock(&media->settings_lock);
	for (i = 0; i < arg->count; i++)
		virtio_media_remember_control(media, &arg->controls[i]);
	mutex_unlock(&media->settings_lock);
	return 0;
}

int virtio_media_try_ext_ctrls(struct file *file, void *priv,
			       struct v4l2_ext_controls *arg)
{
	return virtio_media_ext_ctrls(virtio_media_session(file),
				      VIDIOC_TRY_EXT_CTRLS, arg, virtio_media_command);
}

/* Events wait in the guest: as many of a kind as a program may be late. */
#define WAITING_EVENTS 4

int virtio_media_subscribe(struct v4l2_fh *fh,
			   const struct v4l2_event_subscription *wish)
{
	struct virtio_media_session *session =
		container_of(fh, struct virtio_media_session, fh);
	struct v4l2_event_subscription sent = *wish;
	int err;

	err = v4l2_event_subscribe(fh, wish, WAITING_EVENTS, NULL);
	if (err)
		return err;
	err = virtio_media_ioctl(session, VIDIOC_SUBSCRIBE_EVENT, &sent);
	if (err)
		v4l2_event_unsubscribe(fh, wish);
	return err;
}

int virtio_media_unsubscribe(struct v4l2_fh *fh,
			     const struct v4l2_event_subscription *wish)
{
	struct virtio_media_session *session =
		container_of(fh, struct virtio_media_session, fh);
	struct v4l2_event_subscription sent = *wish;

	/* Whether the device hears it or not, the program does not want them. */
	virtio_media_ioctl(session, VIDIOC_UNSUBSCRIBE_EVENT, &sent);
	return v4l2_event_unsubscribe(fh, wish);
}
