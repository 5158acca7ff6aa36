// SPDX-License-Identifier: GPL-2.0
/* Events: buffers that come back, V4L2 events, sessions that are lost. */

#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "virtio_media.h"

static int virtio_media_offer(struct virtqueue *vq,
			      struct virtio_media_event *event)
{
	struct scatterlist sg;

	sg_init_one(&sg, event, sizeof(*event));
	return virtqueue_add_inbuf(vq, &sg, 1, event, GFP_ATOMIC);
}

int virtio_media_fill_events(struct virtio_media *media)
{
	unsigned int i, room = virtqueue_get_vring_size(media->eventq);
	int err;

	for (i = 0; i < min_t(unsigned int, room, VIRTIO_MEDIA_EVENTS); i++) {
		err = virtio_media_offer(media->eventq, &media->events[i]);
		if (err)
			return err;
	}
	return 0;
}

static struct virtio_media_session *
virtio_media_find(struct virtio_media *media, u32 id)
{
	struct virtio_media_session *session;

	list_for_each_entry(session, &media->sessions, list)
		if (session->id == id)
			return session;
	return NULL;
}

static void virtio_media_dequeue(struct virtio_media_session *session,
				 const struct virtio_media_event *event)
{
	const struct v4l2_buffer *buffer = &event->u.dqbuf.buffer;
	struct virtio_media_queue *queue =
		virtio_media_queue_of(session, buffer->type);

	if (queue && queue->session == session)
		virtio_media_buffer_done(queue, buffer, event->u.dqbuf.planes);
}

/* How much of an event must be there. */
static size_t virtio_media_event_size(u32 code)
{
	size_t head = offsetof(struct virtio_media_event, u);

	switch (code) {
	case VIRTIO_MEDIA_EVT_ERROR:
		return head + sizeof_field(struct virtio_media_event, u.error);
	case VIRTIO_MEDIA_EVT_DQBUF:
		return head + sizeof(struct v4l2_buffer);
	case VIRTIO_MEDIA_EVT_EVENT:
		return head + sizeof(struct v4l2_event);
	default:
		return SIZE_MAX;
	}
}

static void virtio_media_hear(struct virtio_media *media,
			      struct virtio_media_event *event,
			      unsigned int len)
{
	u32 code = le32_to_cpu(event->event);
	struct virtio_media_session *session;
	unsigned long flags;

	if (len < virtio_media_event_size(code))
		return;
	spin_lock_irqsave(&media->sessions_lock, flags);
	session = virtio_media_find(media, le32_to_cpu(event->session));
	if (!session)
		goto out_unlock;
	switch (code) {
	case VIRTIO_MEDIA_EVT_ERROR:
		/* A device that has died has a successor, who says this. */
		virtio_media_lose(session,
				  le32_to_cpu(event->u.error.number) != ECONNRESET);
		break;
	case VIRTIO_MEDIA_EVT_DQBUF:
		virtio_media_dequeue(session, event);
		break;
	case VIRTIO_MEDIA_EVT_EVENT:
		v4l2_event_queue_fh(&session->fh, &event->u.event);
		break;
	}
out_unlock:
	spin_unlock_irqrestore(&media->sessions_lock, flags);
}

void virtio_media_take_events(struct virtio_media *media)
{
	struct virtio_media_event *event;
	struct virtqueue *vq;
	unsigned long flags;
	unsigned int len;

	spin_lock_irqsave(&media->event_lock, flags);
	vq = media->eventq;
	if (!vq)
		goto out_unlock;
	do {
		virtqueue_disable_cb(vq);
		while ((event = virtqueue_get_buf(vq, &len))) {
			/* A device may write on while it is read: it is read once. */
			media->heard = *event;
			barrier();
			virtio_media_hear(media, &media->heard,
					  min_t(unsigned int, len, sizeof(*event)));
			memset(event, 0, sizeof(*event));
			/* There is room: it was just taken. */
			virtio_media_offer(vq, event);
		}
	} while (!virtqueue_enable_cb(vq));
	virtqueue_kick(vq);
out_unlock:
	spin_unlock_irqrestore(&media->event_lock, flags);
}

void virtio_media_event_interrupt(struct virtqueue *vq)
{
	virtio_media_take_events(vq->vdev->priv);
}
