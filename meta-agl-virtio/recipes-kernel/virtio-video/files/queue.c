// SPDX-License-Identifier: GPL-2.0
/*
 * The command queue. A command waits for its answer, for a time that is bounded;
 * a buffer's way through the device takes as long as it takes, and has a
 * function that is called at its end.
 *
 * Whatever waits for an answer owns its memory until the device has given it
 * back or was reset.
 */

#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "driver.h"

/* Buffers leave this many places to commands. */
#define VV_PLACES_FOR_COMMANDS	8

static void vv_request_free(struct kref *users)
{
	struct vv_request *request = container_of(users, struct vv_request,
						  users);

	if (!request->owned)
		return;
	kfree(request->out);
	kfree(request->in);
	kfree(request);
}

void vv_request_put(struct vv_request *request)
{
	kref_put(&request->users, vv_request_free);
}

/* A request with memory of its own, and a copy of what is to be said. */
struct vv_request *vv_request_new(const void *out, u32 out_len, u32 in_len)
{
	struct vv_request *request = kzalloc_obj(*request);

	if (!request)
		return NULL;
	request->out = kmemdup(out, out_len, GFP_KERNEL);
	request->in = kzalloc(in_len, GFP_KERNEL);
	request->out_len = out_len;
	request->in_len = in_len;
	request->owned = true;
	kref_init(&request->users);
	init_completion(&request->completed);
	if (!request->out || !request->in) {
		vv_request_put(request);
		return NULL;
	}
	return request;
}

/* Called with the lock held. */
static void vv_request_end(struct vv_request *request, int status, u32 written)
{
	request->status = status;
	request->written = min(written, request->in_len);
	if (request->done)
		request->done(request);
	else
		complete(&request->completed);
	vv_request_put(request);
}

/* Called with the lock held. -ENOSPC: not now. */
static int vv_queue_add(struct vv_device *vv, struct vv_request *request,
			u32 spare)
{
	struct scatterlist out, in, *sgs[2] = { &out, &in };
	int err;

	if (!vv->commandq)
		return vv->vdev ? -EIO : -ENODEV;
	if (vv->commandq->num_free < 2 + spare)
		return -ENOSPC;
	sg_init_one(&out, request->out, request->out_len);
	sg_init_one(&in, request->in, request->in_len);
	err = virtqueue_add_sgs(vv->commandq, sgs, 1, 1, request, GFP_ATOMIC);
	if (err)
		return err == -ENOMEM ? -ENOSPC : err;
	virtqueue_kick(vv->commandq);
	return 0;
}

static u32 vv_spare_places(const struct vv_device *vv)
{
	u32 size;

	if (!vv->commandq)
		return 0;
	size = virtqueue_get_vring_size(vv->commandq);
	return min_t(u32, VV_PLACES_FOR_COMMANDS, size / 4);
}

/* Called with the lock held: those that found no room, in their order. */
static void vv_submit_waiting(struct vv_device *vv)
{
	struct vv_request *request, *next;
	LIST_HEAD(failed);
	int err;

	list_for_each_entry_safe(request, next, &vv->backlog, entry) {
		err = vv_queue_add(vv, request, vv_spare_places(vv));
		if (err == -ENOSPC)
			break;
		if (err) {
			request->status = err;
			list_move_tail(&request->entry, &failed);
		} else {
			list_del_init(&request->entry);
		}
	}
	while ((request = list_first_entry_or_null(&failed, struct vv_request,
						   entry))) {
		list_del_init(&request->entry);
		vv_request_end(request, request->status, 0);
	}
}

/*
 * Called with the lock held: sent when there is room, after those before it.
 * Takes a reference; the request's function is called whatever becomes of it.
 */
void vv_submit(struct vv_device *vv, struct vv_request *request)
{
	kref_get(&request->users);
	list_add_tail(&request->entry, &vv->backlog);
	vv_submit_waiting(vv);
}

/* Called with the lock held: take back what was not sent yet. */
void vv_backlog_cancel(struct vv_device *vv, const void *owner)
{
	struct vv_request *request, *next;
	LIST_HEAD(cancelled);

	list_for_each_entry_safe(request, next, &vv->backlog, entry)
		if (request->owner == owner)
			list_move_tail(&request->entry, &cancelled);
	while ((request = list_first_entry_or_null(&cancelled,
						   struct vv_request, entry))) {
		list_del_init(&request->entry);
		vv_request_end(request, -ECANCELED, 0);
	}
}

/* Whether it was tried with an outcome: there was room for it, or never will be. */
static bool vv_try_exchange(struct vv_device *vv, struct vv_request *request,
			    int *err)
{
	unsigned long flags;

	spin_lock_irqsave(&vv->lock, flags);
	*err = vv_queue_add(vv, request, 0);
	if (!*err)
		kref_get(&request->users);
	spin_unlock_irqrestore(&vv->lock, flags);
	return *err != -ENOSPC;
}

/* Send a command, and wait for the answer: how much of it came. */
int vv_exchange(struct vv_device *vv, const void *out, u32 out_len, void *in,
		u32 in_len, u32 *written)
{
	unsigned long patience = msecs_to_jiffies(vv_timeout_ms);
	struct vv_request *request = vv_request_new(out, out_len, in_len);
	int err;

	if (!request)
		return -ENOMEM;
	if (!wait_event_timeout(vv->room, vv_try_exchange(vv, request, &err),
				patience))
		err = -ETIMEDOUT;
	else if (!err && !wait_for_completion_timeout(&request->completed,
						      patience))
		err = -ETIMEDOUT;
	else if (!err)
		err = request->status;
	if (!err) {
		*written = request->written;
		memcpy(in, request->in, request->written);
	}
	vv_request_put(request);
	if (err == -ETIMEDOUT)
		vv_device_misbehaves(vv, "does not answer");
	return err;
}

/* Called with the lock held. */
void vv_queue_collect(struct vv_device *vv)
{
	struct vv_request *request;
	u32 written;

	if (!vv->commandq)
		return;
	while ((request = virtqueue_get_buf(vv->commandq, &written)))
		vv_request_end(request, 0, written);
	vv_submit_waiting(vv);
}

void vv_queue_interrupt(struct virtqueue *vq)
{
	struct vv_device *vv = vq->vdev->priv;
	unsigned long flags;

	spin_lock_irqsave(&vv->lock, flags);
	do {
		virtqueue_disable_cb(vq);
		vv_queue_collect(vv);
	} while (vv->commandq && !virtqueue_enable_cb(vq));
	spin_unlock_irqrestore(&vv->lock, flags);
	wake_up_all(&vv->room);
}

/* The device is reset: what it had is nobody's any more. */
void vv_queue_abandon(struct vv_device *vv, struct virtqueue *vq)
{
	struct vv_request *request;
	unsigned long flags;

	spin_lock_irqsave(&vv->lock, flags);
	while (vq && (request = virtqueue_detach_unused_buf(vq)))
		vv_request_end(request, -EIO, 0);
	while ((request = list_first_entry_or_null(&vv->backlog,
						   struct vv_request, entry))) {
		list_del_init(&request->entry);
		vv_request_end(request, -EIO, 0);
	}
	spin_unlock_irqrestore(&vv->lock, flags);
	wake_up_all(&vv->room);
}

/* Whether an answer is one: of this kind, to this stream, and long enough. */
int vv_response_check(const void *in, u32 written, u32 least, u32 type,
		      u32 stream_id)
{
	const struct vv_wire_header *header = in;
	u32 said;

	if (written < sizeof(*header))
		return -EIO;
	said = le32_to_cpu(header->type);
	if (le32_to_cpu(header->stream_id) != stream_id)
		return -EPROTO;
	switch (said) {
	case VV_RESP_ERR_INVALID_OPERATION:
		return -EPERM;
	case VV_RESP_ERR_OUT_OF_MEMORY:
		return -ENOMEM;
	case VV_RESP_ERR_INVALID_STREAM_ID:
		return -ENOLINK;
	case VV_RESP_ERR_INVALID_RESOURCE_ID:
	case VV_RESP_ERR_INVALID_PARAMETER:
		return -EINVAL;
	case VV_RESP_ERR_UNSUPPORTED_CONTROL:
		return -EOPNOTSUPP;
	}
	return said == type && written >= least ? 0 : -EPROTO;
}
