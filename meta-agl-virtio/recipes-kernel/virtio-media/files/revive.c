// SPDX-License-Identifier: GPL-2.0
/*
 * Sessions that are lost.
 *
 * A camera's session that is lost because the device has died or slept is begun
 * anew with what it had, so that the program sees a pause. What a codec was
 * doing cannot be said again: its program gets an error.
 */

#include <linux/slab.h>

#include "virtio_media.h"

/* With sessions_lock held. */
void virtio_media_lose(struct virtio_media_session *session, bool for_good)
{
	struct virtio_media_queue *camera = session->capture;

	WRITE_ONCE(session->lost, true);
	if (session->output) {
		vb2_queue_error(&session->output->vb2);
		vb2_queue_error(&session->capture->vb2);
	} else if (for_good) {
		if (camera->session == session)
			vb2_queue_error(&camera->vb2);
	} else if (!session->closing && session->media->eventq) {
		queue_work(session->media->work, &session->revive);
	}
	wake_up_all(&session->fh.wait);
}

void virtio_media_lose_all(struct virtio_media *media, bool for_good)
{
	struct virtio_media_session *session;
	unsigned long flags;

	spin_lock_irqsave(&media->sessions_lock, flags);
	list_for_each_entry(session, &media->sessions, list)
		virtio_media_lose(session, for_good);
	spin_unlock_irqrestore(&media->sessions_lock, flags);
}

/* The device is there again, and knows nothing. */
void virtio_media_revive_all(struct virtio_media *media)
{
	virtio_media_lose_all(media, false);
}

bool virtio_media_may_return(struct virtio_media_session *session, int err)
{
	/* ENODEV says that the device knows no such session. */
	if ((err != -ENODEV && err != -EIO) || session->output)
		return false;
	return flush_work(&session->revive);
}

/* What a camera was set to, as far as it was set by this guest. */
static void virtio_media_restore_settings(struct virtio_media_session *session)
{
	struct virtio_media *media = session->media;
	struct v4l2_streamparm parm;
	struct v4l2_format format;

	mutex_lock(&media->settings_lock);
	format = media->format;
	parm = media->parm;
	mutex_unlock(&media->settings_lock);
	/* Refused where another session streams already: then it is set. */
	if (format.type)
		virtio_media_ioctl_once(session, VIDIOC_S_FMT, &format);
	if (parm.type)
		virtio_media_ioctl_once(session, VIDIOC_S_PARM, &parm);
	virtio_media_restore_controls(session);
}

static void virtio_media_resubscribe(struct virtio_media_session *session)
{
	struct v4l2_subscribed_event *wish;
	struct v4l2_event_subscription *wishes;
	unsigned int count = 0, most = 64;
	unsigned long flags;

	wishes = kcalloc(most, sizeof(*wishes), GFP_KERNEL);
	if (!wishes)
		return;
	spin_lock_irqsave(&session->fh.vdev->fh_lock, flags);
	list_for_each_entry(wish, &session->fh.subscribed, list) {
		if (count == most)
			break;
		wishes[count].type = wish->type;
		wishes[count].id = wish->id;
		wishes[count].flags = wish->flags & ~V4L2_EVENT_SUB_FL_SEND_INITIAL;
		count++;
	}
	spin_unlock_irqrestore(&session->fh.vdev->fh_lock, flags);
	while (count--)
		virtio_media_ioctl_once(session, VIDIOC_SUBSCRIBE_EVENT,
					&wishes[count]);
	kfree(wishes);
}

static int virtio_media_begin_anew(struct virtio_media_session *session)
{
	struct virtio_media *media = session->media;
	unsigned long flags;
	u32 id;
	int err;

	virtio_media_close_session(media, session->id);
	err = virtio_media_open_session(media, &id);
	if (err)
		return err;
	spin_lock_irqsave(&media->sessions_lock, flags);
	session->id = id;
	session->lost = false;
	session->births++;
	spin_unlock_irqrestore(&media->sessions_lock, flags);
	virtio_media_restore_settings(session);
	virtio_media_resubscribe(session);
	if (session->capture->session != session)
		return 0;
	return virtio_media_queue_revive(session->capture);
}

void virtio_media_revive(struct work_struct *work)
{
	struct virtio_media_session *session =
		container_of(work, struct virtio_media_session, revive);
	struct virtio_media *media = session->media;
	unsigned long flags;
	int err = 0;

	down_write(&session->alive);
	if (session->lost)
		err = virtio_media_begin_anew(session);
	up_write(&session->alive);
	/* It may have died once more meanwhile: then this runs once more. */
	if (!err || work_pending(work))
		return;
	v4l2_err(&media->v4l2, "a session could not begin anew: %d\n", err);
	spin_lock_irqsave(&media->sessions_lock, flags);
	virtio_media_lose(session, true);
	spin_unlock_irqrestore(&media->sessions_lock, flags);
}
