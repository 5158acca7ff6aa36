// SPDX-License-Identifier: GPL-2.0
/*
 * The event queue. An event comes after the answers that belong before it: those
 * are collected first.
 */

#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "driver.h"

/* Called with the lock held. */
static void vv_event_offer(struct vv_device *vv, struct vv_wire_event *event)
{
	struct scatterlist in;

	memset(event, 0, sizeof(*event));
	sg_init_one(&in, event, sizeof(*event));
	/* It has room for as many as are ever offered, or for fewer. */
	virtqueue_add_inbuf(vv->eventq, &in, 1, event, GFP_ATOMIC);
}

/* All of them, when the device starts. Called with the lock held. */
void vv_events_offer(struct vv_device *vv)
{
	u32 i;

	for (i = 0; i < VV_EVENTS && vv->eventq->num_free; i++)
		vv_event_offer(vv, &vv->events[i]);
	virtqueue_kick(vv->eventq);
}

static void vv_event_take(struct vv_device *vv,
			  const struct vv_wire_event *event)
{
	struct vv_session *session;
	u32 stream = le32_to_cpu(event->stream_id);

	session = stream ? xa_load(&vv->sessions, stream) : NULL;
	/* Of a stream that has just ended, or of none. */
	if (!session)
		return;
	switch (le32_to_cpu(event->type)) {
	case VV_EVENT_ERROR:
		vv_stream_lost_locked(session);
		break;
	case VV_EVENT_DECODER_RESOLUTION_CHANGED:
		if (vv->encoder)
			break;
		session->changing = true;
		queue_work(vv->works, &session->change);
		break;
	}
}

void vv_events_interrupt(struct virtqueue *vq)
{
	struct vv_device *vv = vq->vdev->priv;
	struct vv_wire_event *event;
	unsigned long flags;
	u32 written;

	spin_lock_irqsave(&vv->lock, flags);
	while (vv->eventq && (event = virtqueue_get_buf(vv->eventq, &written))) {
		vv_queue_collect(vv);
		if (written >= sizeof(*event))
			vv_event_take(vv, event);
		vv_event_offer(vv, event);
		virtqueue_kick(vv->eventq);
	}
	spin_unlock_irqrestore(&vv->lock, flags);
	wake_up_all(&vv->room);
}
