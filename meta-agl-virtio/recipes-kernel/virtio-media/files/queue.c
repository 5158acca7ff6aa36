// SPDX-License-Identifier: GPL-2.0
/*
 * Queues of buffers: vb2 has the buffers and the programs' side of them; the
 * device is told where their pages are each time it gets one.
 */

#include <linux/dma-mapping.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <media/videobuf2-dma-sg.h>

#include "virtio_media.h"

/* What a codec makes of a buffer keeps of it, beside its time. */
#define KEPT_FLAGS (V4L2_BUF_FLAG_TIMECODE | V4L2_BUF_FLAG_TSTAMP_SRC_MASK)

/* What a device tells of a buffer. */
#define TOLD_FLAGS (V4L2_BUF_FLAG_KEYFRAME | V4L2_BUF_FLAG_PFRAME | \
		    V4L2_BUF_FLAG_BFRAME | V4L2_BUF_FLAG_LAST)

static struct virtio_media_buffer *virtio_media_buffer(struct vb2_buffer *vb)
{
	return container_of(to_vb2_v4l2_buffer(vb), struct virtio_media_buffer, vb);
}

/* Sizes of the planes in the queue's present format. */
static int virtio_media_sizes(struct virtio_media_queue *queue,
			      unsigned int *planes, unsigned int sizes[])
{
	struct v4l2_format format = { .type = queue->vb2.type };
	unsigned int i;
	int err;

	err = virtio_media_ioctl(queue->session, VIDIOC_G_FMT, &format);
	if (err)
		return err;
	if (!V4L2_TYPE_IS_MULTIPLANAR(format.type)) {
		*planes = 1;
		sizes[0] = format.fmt.pix.sizeimage;
		return sizes[0] ? 0 : -EINVAL;
	}
	*planes = format.fmt.pix_mp.num_planes;
	if (!*planes || *planes > VIDEO_MAX_PLANES)
		return -EIO;
	for (i = 0; i < *planes; i++) {
		sizes[i] = format.fmt.pix_mp.plane_fmt[i].sizeimage;
		if (!sizes[i])
			return -EINVAL;
	}
	return 0;
}

static int virtio_media_request_slots(struct virtio_media_queue *queue,
				      unsigned int *count)
{
	struct virtio_media_session *session = queue->session;
	struct v4l2_requestbuffers request = {
		.type = queue->vb2.type,
		.memory = virtio_media_memory(queue),
		.count = *count,
	};
	int err;

	err = virtio_media_ioctl(session, VIDIOC_REQBUFS, &request);
	if (err)
		return err;
	queue->device_slots = request.count;
	*count = request.count;
	return 0;
}

static int virtio_media_more_slots(struct virtio_media_queue *queue,
				   unsigned int count, unsigned int planes,
				   const unsigned int sizes[])
{
	struct v4l2_create_buffers create = {
		.format.type = queue->vb2.type,
		.memory = virtio_media_memory(queue),
		.count = count,
	};
	struct v4l2_format *format = &create.format;
	unsigned int i;
	int err;

	err = virtio_media_ioctl(queue->session, VIDIOC_G_FMT, format);
	if (err)
		return err;
	/* Where the memory is the device's, it must know how much is wanted. */
	if (!V4L2_TYPE_IS_MULTIPLANAR(format->type))
		format->fmt.pix.sizeimage = sizes[0];
	else
		for (i = 0; i < planes; i++)
			format->fmt.pix_mp.plane_fmt[i].sizeimage = sizes[i];
	err = virtio_media_ioctl(queue->session, VIDIOC_CREATE_BUFS, &create);
	if (err)
		return err;
	queue->device_slots = create.index + create.count;
	return 0;
}

static int virtio_media_queue_setup(struct vb2_queue *q, unsigned int *buffers,
				    unsigned int *planes, unsigned int sizes[],
				    struct device *devs[])
{
	struct virtio_media_queue *queue = vb2_get_drv_priv(q);
	unsigned int needed[VIDEO_MAX_PLANES], count, i;
	unsigned int total = virtio_media_count_buffers(q) + *buffers;
	int err;

	err = virtio_media_sizes(queue, &count, needed);
	if (err)
		return err;
	if (!virtio_media_count_buffers(q)) {
		queue->planes = count;
		memcpy(queue->sizes, needed, count * sizeof(*needed));
	}
	if (!*planes) {
		*planes = count;
		memcpy(sizes, needed, count * sizeof(*sizes));
		return virtio_media_request_slots(queue, buffers);
	}
	if (*planes != count)
		return -EINVAL;
	for (i = 0; i < count; i++)
		if (sizes[i] < needed[i])
			return -EINVAL;
	if (total <= queue->device_slots)
		return 0;
	if (!queue->device_slots && !queue->media->in_region)
		return virtio_media_request_slots(queue, &total);
	err = virtio_media_more_slots(queue, total - queue->device_slots, count, sizes);
	if (err)
		return err;
	if (queue->device_slots <= virtio_media_count_buffers(q))
		return -ENOMEM;
	*buffers = min(*buffers, queue->device_slots - virtio_media_count_buffers(q));
	return 0;
}

static int virtio_media_buf_prepare(struct vb2_buffer *vb)
{
	struct virtio_media_queue *queue = vb2_get_drv_priv(vb->vb2_queue);
	unsigned int i;

	if (V4L2_TYPE_IS_OUTPUT(vb->type))
		return 0;
	if (queue->planes != vb->num_planes)
		return -EINVAL;
	/*
	 * What was asked for then: a decoder's pictures may be larger by now,
	 * and the last buffer before them, an empty one, has the former size.
	 */
	for (i = 0; i < vb->num_planes; i++) {
		if (vb2_plane_size(vb, i) < queue->sizes[i])
			return -EINVAL;
		vb2_set_plane_payload(vb, i, queue->sizes[i]);
	}
	return 0;
}

static int virtio_media_buf_out_validate(struct vb2_buffer *vb)
{
	to_vb2_v4l2_buffer(vb)->field = V4L2_FIELD_NONE;
	return 0;
}

/*
 * Runs of pages, those that follow each other as one. Without an IOMMU before
 * it, a device uses the guest's physical addresses.
 */
static unsigned int virtio_media_runs(struct virtio_media_queue *queue,
				      struct vb2_buffer *vb, unsigned int plane,
				      struct virtio_media_sg_entry *entries)
{
	struct sg_table *table;
	bool physical = queue->media->has_dma_quirk &&
			vb->memory != VB2_MEMORY_DMABUF;
	unsigned int left = vb->planes[plane].length, count = 0, i, nents;
	u64 end = 0;
	struct scatterlist *sg;

	/* The device knows where its own are. */
	if (queue->media->in_region)
		return 0;
	table = vb2_dma_sg_plane_desc(vb, plane);
	nents = physical ? table->orig_nents : table->nents;
	for_each_sg(table->sgl, sg, nents, i) {
		u64 start = physical ? sg_phys(sg) : sg_dma_address(sg);
		unsigned int len = min(left, physical ? sg->length : sg_dma_len(sg));

		if (!len)
			break;
		if (count && start == end && entries &&
		    (u64)le32_to_cpu(entries[count - 1].len) + len <= U32_MAX) {
			le32_add_cpu(&entries[count - 1].len, len);
		} else {
			if (entries) {
				entries[count].start = cpu_to_le64(start);
				entries[count].len = cpu_to_le32(len);
			}
			count++;
		}
		end = start + len;
		left -= len;
	}
	return count;
}

static void virtio_media_describe(struct vb2_buffer *vb, struct v4l2_buffer *buffer,
				  struct v4l2_plane *planes)
{
	struct vb2_v4l2_buffer *vbuf = to_vb2_v4l2_buffer(vb);
	unsigned int i;

	buffer->index = vb->index;
	buffer->type = vb->type;
	buffer->memory = virtio_media_memory(vb2_get_drv_priv(vb->vb2_queue));
	buffer->field = vbuf->field;
	if (V4L2_TYPE_IS_OUTPUT(vb->type)) {
		struct timespec64 time = ns_to_timespec64(vb->timestamp);

		buffer->timestamp.tv_sec = time.tv_sec;
		buffer->timestamp.tv_usec = time.tv_nsec / NSEC_PER_USEC;
		buffer->flags = vbuf->flags & (TOLD_FLAGS | KEPT_FLAGS);
		buffer->timecode = vbuf->timecode;
	}
	if (!V4L2_TYPE_IS_MULTIPLANAR(vb->type)) {
		buffer->length = vb->planes[0].length;
		buffer->bytesused = vb->planes[0].bytesused;
		return;
	}
	buffer->length = vb->num_planes;
	for (i = 0; i < vb->num_planes; i++) {
		planes[i].length = vb->planes[i].length;
		if (V4L2_TYPE_IS_OUTPUT(vb->type)) {
			planes[i].bytesused = vb->planes[i].bytesused;
			planes[i].data_offset = vb->planes[i].data_offset;
		}
	}
}

/* With session->alive held. */
static int virtio_media_send_buffer(struct virtio_media_queue *queue,
				    struct vb2_buffer *vb)
{
	bool mplane = V4L2_TYPE_IS_MULTIPLANAR(vb->type);
	struct virtio_media_buffers buffers = {};
	struct virtio_media_sg_entry *entries;
	struct v4l2_buffer *buffer;
	unsigned int i, runs = 0;
	size_t head;
	void *out;
	int err;

	if (queue->media->in_region) {
		err = virtio_media_region_refresh(queue, vb->index);
		if (err)
			return err;
	}
	for (i = 0; i < vb->num_planes; i++)
		runs += virtio_media_runs(queue, vb, i, NULL);
	head = sizeof(*buffer);
	if (mplane)
		head += vb->num_planes * sizeof(struct v4l2_plane);
	out = kvzalloc(size_add(head, array_size(runs, sizeof(*entries))), GFP_KERNEL);
	if (!out)
		return -ENOMEM;
	buffer = out;
	virtio_media_describe(vb, buffer, out + sizeof(*buffer));
	entries = out + head;
	for (i = 0; i < vb->num_planes; i++)
		entries += virtio_media_runs(queue, vb, i, entries);
	buffers.out = out;
	buffers.out_len = (void *)entries - out;
	/* The answer says nothing that is not known; it overwrites what was sent. */
	buffers.in = out;
	buffers.in_len = head;
	err = virtio_media_command_once(queue->session, _IOC_NR(VIDIOC_QBUF), &buffers);
	kvfree(out);
	return err;
}

static void virtio_media_buf_queue(struct vb2_buffer *vb)
{
	struct virtio_media_queue *queue = vb2_get_drv_priv(vb->vb2_queue);
	struct virtio_media_buffer *buffer = virtio_media_buffer(vb);
	struct virtio_media_session *session = queue->session;
	unsigned long flags;
	bool mine;
	int err;

	down_read(&session->alive);
	/* Before it is sent: it may come back before the answer does. */
	spin_lock_irqsave(&queue->queued_lock, flags);
	list_add_tail(&buffer->list, &queue->queued);
	spin_unlock_irqrestore(&queue->queued_lock, flags);
	err = virtio_media_send_buffer(queue, vb);
	/* A session that begins anew sends it again. */
	if (err && (session->output || !READ_ONCE(session->lost))) {
		/* A device may refuse a buffer that it has given back. */
		spin_lock_irqsave(&queue->queued_lock, flags);
		mine = !list_empty(&buffer->list);
		list_del_init(&buffer->list);
		spin_unlock_irqrestore(&queue->queued_lock, flags);
		if (mine)
			vb2_buffer_done(vb, VB2_BUF_STATE_ERROR);
	}
	up_read(&session->alive);
}

static void virtio_media_return_all(struct virtio_media_queue *queue,
				    enum vb2_buffer_state state)
{
	struct virtio_media_buffer *buffer, *next;
	unsigned long flags;
	LIST_HEAD(queued);

	spin_lock_irqsave(&queue->queued_lock, flags);
	list_splice_init(&queue->queued, &queued);
	spin_unlock_irqrestore(&queue->queued_lock, flags);
	list_for_each_entry_safe(buffer, next, &queued, list)
		vb2_buffer_done(&buffer->vb.vb2_buf, state);
}

/* With session->alive held. */
static int virtio_media_stream(struct virtio_media_queue *queue, unsigned int cmd)
{
	u32 type = queue->vb2.type;

	return virtio_media_ioctl_once(queue->session, cmd, &type);
}

static int virtio_media_start_streaming(struct vb2_queue *q, unsigned int count)
{
	struct virtio_media_queue *queue = vb2_get_drv_priv(q);
	struct virtio_media_session *session = queue->session;
	int err;

	down_read(&session->alive);
	queue->started = true;
	err = virtio_media_stream(queue, VIDIOC_STREAMON);
	/* A session that begins anew starts by itself. */
	if (err && !session->output && READ_ONCE(session->lost))
		err = 0;
	if (err) {
		queue->started = false;
		virtio_media_stream(queue, VIDIOC_STREAMOFF);
	}
	up_read(&session->alive);
	if (err)
		virtio_media_return_all(queue, VB2_BUF_STATE_QUEUED);
	return err;
}

static void virtio_media_stop_streaming(struct vb2_queue *q)
{
	struct virtio_media_queue *queue = vb2_get_drv_priv(q);
	struct virtio_media_session *session = queue->session;

	down_read(&session->alive);
	queue->started = false;
	virtio_media_stream(queue, VIDIOC_STREAMOFF);
	up_read(&session->alive);
	virtio_media_return_all(queue, VB2_BUF_STATE_ERROR);
}

static const struct vb2_ops virtio_media_vb2_ops = {
	.queue_setup = virtio_media_queue_setup,
	.buf_out_validate = virtio_media_buf_out_validate,
	.buf_prepare = virtio_media_buf_prepare,
	.buf_queue = virtio_media_buf_queue,
	.start_streaming = virtio_media_start_streaming,
	.stop_streaming = virtio_media_stop_streaming,
#ifdef VIRTIO_MEDIA_WAIT_PREPARE
	.wait_prepare = vb2_ops_wait_prepare,
	.wait_finish = vb2_ops_wait_finish,
#endif
};

int virtio_media_queue_init(struct virtio_media_queue *queue,
			    struct virtio_media *media,
			    struct virtio_media_session *session, u32 type)
{
	struct vb2_queue *q = &queue->vb2;

	mutex_init(&queue->lock);
	spin_lock_init(&queue->queued_lock);
	INIT_LIST_HEAD(&queue->queued);
	queue->media = media;
	queue->session = session;
	q->type = type;
	q->io_modes = media->in_region ? VB2_MMAP : VB2_MMAP | VB2_USERPTR | VB2_DMABUF;
	q->dev = media->dma_dev;
	q->lock = &queue->lock;
	q->ops = &virtio_media_vb2_ops;
	q->mem_ops = media->in_region ? &virtio_media_region_ops : &vb2_dma_sg_memops;
	q->drv_priv = queue;
	q->buf_struct_size = sizeof(struct virtio_media_buffer);
	q->timestamp_flags = virtio_media_is_codec(media) ?
		V4L2_BUF_FLAG_TIMESTAMP_COPY : V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
	return vb2_queue_init(q);
}

void virtio_media_queue_release(struct virtio_media_queue *queue)
{
	mutex_lock(&queue->lock);
	vb2_queue_release(&queue->vb2);
	mutex_unlock(&queue->lock);
	mutex_destroy(&queue->lock);
}

/* With the queue's lock: the session that had the buffers does not want them. */
void virtio_media_queue_reset(struct virtio_media_queue *queue)
{
	unsigned int none = 0;

	vb2_queue_release(&queue->vb2);
	if (queue->device_slots)
		virtio_media_request_slots(queue, &none);
	queue->device_slots = 0;
	queue->session = NULL;
}

/* With session->alive held to write: all that the device had of this queue. */
int virtio_media_queue_revive(struct virtio_media_queue *queue)
{
	struct v4l2_requestbuffers request = {
		.type = queue->vb2.type,
		.memory = virtio_media_memory(queue),
		.count = queue->device_slots,
	};
	struct virtio_media_buffer *buffer;
	unsigned long flags;
	LIST_HEAD(queued);
	int err;

	if (!request.count)
		return 0;
	err = virtio_media_ioctl_once(queue->session, VIDIOC_REQBUFS, &request);
	/* Buffers come back as soon as it streams, and not before. */
	spin_lock_irqsave(&queue->queued_lock, flags);
	list_splice_init(&queue->queued, &queued);
	spin_unlock_irqrestore(&queue->queued_lock, flags);
	list_for_each_entry(buffer, &queued, list)
		err = err ?: virtio_media_send_buffer(queue, &buffer->vb.vb2_buf);
	spin_lock_irqsave(&queue->queued_lock, flags);
	list_splice(&queued, &queue->queued);
	spin_unlock_irqrestore(&queue->queued_lock, flags);
	if (!err && queue->started)
		err = virtio_media_stream(queue, VIDIOC_STREAMON);
	return err;
}

/* A buffer comes back. From the interrupt, too. */
void virtio_media_buffer_done(struct virtio_media_queue *queue,
			      const struct v4l2_buffer *told,
			      const struct v4l2_plane *planes)
{
	enum vb2_buffer_state state = VB2_BUF_STATE_DONE;
	struct virtio_media_buffer *buffer, *found = NULL;
	struct vb2_buffer *vb;
	unsigned int i;

	/* Its picture was kept without this one: it is sent again. */
	if (READ_ONCE(queue->media->asleep))
		return;
	spin_lock(&queue->queued_lock);
	list_for_each_entry(buffer, &queue->queued, list) {
		if (buffer->vb.vb2_buf.index == told->index) {
			found = buffer;
			list_del_init(&buffer->list);
			break;
		}
	}
	spin_unlock(&queue->queued_lock);
	if (!found)
		return;
	vb = &found->vb.vb2_buf;
	found->vb.sequence = told->sequence;
	if (!V4L2_TYPE_IS_OUTPUT(vb->type)) {
		found->vb.field = told->field;
		for (i = 0; i < vb->num_planes; i++) {
			u32 used = V4L2_TYPE_IS_MULTIPLANAR(vb->type) ?
				planes[i].bytesused : told->bytesused;

			if (used > vb2_plane_size(vb, i)) {
				used = 0;
				state = VB2_BUF_STATE_ERROR;
			}
			vb2_set_plane_payload(vb, i, used);
		}
		found->vb.flags &= ~TOLD_FLAGS;
		found->vb.flags |= told->flags & TOLD_FLAGS;
		if (queue->vb2.timestamp_flags == V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC) {
			/* The device's clock is not the guest's. */
			vb->timestamp = ktime_get_ns();
		} else {
			vb->timestamp = told->timestamp.tv_sec * NSEC_PER_SEC +
				told->timestamp.tv_usec * NSEC_PER_USEC;
			found->vb.flags &= ~KEPT_FLAGS;
			found->vb.flags |= told->flags & KEPT_FLAGS;
			found->vb.timecode = told->timecode;
		}
	}
	if (told->flags & V4L2_BUF_FLAG_ERROR)
		state = VB2_BUF_STATE_ERROR;
	vb2_buffer_done(vb, state);
}

struct virtio_media_queue *virtio_media_queue_of(struct virtio_media_session *session,
						 u32 type)
{
	if (session->output && session->output->vb2.type == type)
		return session->output;
	if (session->capture->vb2.type == type)
		return session->capture;
	return NULL;
}
