// SPDX-License-Identifier: GPL-2.0
/*
 * The two buffer queues of a session. The device is told where a buffer lies
 * before it gets it for the first time, and again when its memory is another.
 */

#include <media/videobuf2-dma-sg.h>

#include "driver.h"

static struct vv_lane *vv_lane_of(struct vb2_queue *queue)
{
	return container_of(queue, struct vv_lane, queue);
}

static struct vv_buffer *vv_buffer_of(struct vb2_buffer *vb)
{
	return container_of(to_vb2_v4l2_buffer(vb), struct vv_buffer, vbuf);
}

static int vv_queue_setup(struct vb2_queue *queue, unsigned int *num_buffers,
			  unsigned int *num_planes, unsigned int sizes[],
			  struct device *alloc_devs[])
{
	struct vv_lane *lane = vv_lane_of(queue);
	const struct v4l2_pix_format_mplane *pix = &lane->pix;
	u32 plane;

	if (*num_planes) {
		/* CREATE_BUFS has its own wishes. */
		if (*num_planes != pix->num_planes)
			return -EINVAL;
		for (plane = 0; plane < pix->num_planes; plane++)
			if (sizes[plane] < pix->plane_fmt[plane].sizeimage)
				return -EINVAL;
		return 0;
	}
	/* Elsewhere a program cannot have known before it asked for some. */
	if (lane->side == VV_OUT && !lane->format->pixel->coded)
		*num_buffers = max(*num_buffers, lane->min_buffers);
	*num_planes = pix->num_planes;
	for (plane = 0; plane < pix->num_planes; plane++)
		sizes[plane] = pix->plane_fmt[plane].sizeimage;
	return 0;
}

static int vv_buf_init(struct vb2_buffer *vb)
{
	struct vv_buffer *buffer = vv_buffer_of(vb);

	INIT_LIST_HEAD(&buffer->entry);
	buffer->attached = false;
	return 0;
}

static int vv_buf_out_validate(struct vb2_buffer *vb)
{
	to_vb2_v4l2_buffer(vb)->field = V4L2_FIELD_NONE;
	return 0;
}

/*
 * A program that has not read yet of a change of resolution goes on with what
 * it has; and may have nothing else queued in which to be told of the change.
 * Should it keep these buffers, the device refuses those that are too small.
 */
static bool vv_any_size(const struct vv_lane *lane)
{
	if (lane->side == VV_OUT)
		return READ_ONCE(lane->session->held);
	return lane->format->pixel->coded;
}

static int vv_buf_prepare(struct vb2_buffer *vb)
{
	struct vv_lane *lane = vv_lane_of(vb->vb2_queue);
	struct vv_buffer *buffer = vv_buffer_of(vb);
	u32 plane;
	int err;

	for (plane = 0; plane < vb->num_planes; plane++) {
		if (vb2_plane_size(vb, plane) <
		    lane->pix.plane_fmt[plane].sizeimage && !vv_any_size(lane))
			return -EINVAL;
		/* The device takes a plane from its beginning. */
		if (lane->side == VV_IN && vb->planes[plane].data_offset)
			return -EINVAL;
	}
	if (!lane->session->stream || lane->session->lost)
		return -EIO;
	if (buffer->attached && buffer->generation == lane->generation)
		return 0;
	err = vv_attach(lane->session, lane->side, vb);
	if (err)
		return err;
	buffer->attached = true;
	buffer->generation = lane->generation;
	return 0;
}

/* Its memory goes. While others are in use, nothing can be detached by itself. */
static void vv_buf_cleanup(struct vb2_buffer *vb)
{
	struct vv_lane *lane = vv_lane_of(vb->vb2_queue);
	struct vv_session *session = lane->session;
	struct vv_buffer *buffer = vv_buffer_of(vb);
	bool known = buffer->attached && buffer->generation == lane->generation;

	buffer->attached = false;
	if (!known || lane->streaming || !session->stream || session->lost)
		return;
	vv_detach_all(session, lane->side);
	lane->generation++;
}

static void vv_buf_queue(struct vb2_buffer *vb)
{
	struct vv_lane *lane = vv_lane_of(vb->vb2_queue);
	struct vv_device *vv = lane->session->vv;
	unsigned long flags;

	spin_lock_irqsave(&vv->lock, flags);
	list_add_tail(&vv_buffer_of(vb)->entry, &lane->ready);
	vv_flow_push(lane->session);
	spin_unlock_irqrestore(&vv->lock, flags);
}

static int vv_start_streaming(struct vb2_queue *queue, unsigned int count)
{
	struct vv_lane *lane = vv_lane_of(queue);
	struct vv_session *session = lane->session;
	struct vv_buffer *buffer;
	unsigned long flags;

	if (session->stream && !session->lost) {
		vv_flow_begin(session, lane->side);
		return 0;
	}
	spin_lock_irqsave(&session->vv->lock, flags);
	while ((buffer = list_first_entry_or_null(&lane->ready,
						  struct vv_buffer, entry))) {
		list_del(&buffer->entry);
		vb2_buffer_done(&buffer->vbuf.vb2_buf, VB2_BUF_STATE_QUEUED);
	}
	spin_unlock_irqrestore(&session->vv->lock, flags);
	return -EIO;
}

static void vv_stop_streaming(struct vb2_queue *queue)
{
	struct vv_lane *lane = vv_lane_of(queue);

	vv_flow_end(lane->session, lane->side);
}

static const struct vb2_ops vv_buffer_ops = {
	.queue_setup = vv_queue_setup,
	.buf_out_validate = vv_buf_out_validate,
	.buf_init = vv_buf_init,
	.buf_prepare = vv_buf_prepare,
	.buf_cleanup = vv_buf_cleanup,
	.buf_queue = vv_buf_queue,
	.start_streaming = vv_start_streaming,
	.stop_streaming = vv_stop_streaming,
#ifdef VV_HAS_WAIT_OPS
	.wait_prepare = vb2_ops_wait_prepare,
	.wait_finish = vb2_ops_wait_finish,
#endif
};

int vv_lane_init(struct vv_session *session, enum vv_side side)
{
	struct vv_lane *lane = &session->lanes[side];
	struct vb2_queue *queue = &lane->queue;
	struct vv_device *vv = session->vv;

	lane->session = session;
	lane->side = side;
	INIT_LIST_HEAD(&lane->ready);
	init_waitqueue_head(&lane->idle);
	queue->type = side == VV_IN ? V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE :
				      V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE;
	queue->io_modes = VB2_MMAP | VB2_USERPTR;
	/*
	 * Memory of another device is known by its DMA addresses, which mean
	 * something else to a device that is behind no IOMMU.
	 */
	if (!vv->physical || !device_iommu_mapped(vv->dma_dev))
		queue->io_modes |= VB2_DMABUF;
	queue->mem_ops = &vb2_dma_sg_memops;
#ifdef VV_HAS_OBJECTS
	if (vv_side_has_objects(vv, side)) {
		queue->io_modes = VB2_DMABUF;
		queue->mem_ops = &vv_object_memops;
	}
#endif
	queue->dev = vv->dma_dev;
	queue->lock = &session->lock;
	queue->drv_priv = session;
	queue->ops = &vv_buffer_ops;
	queue->buf_struct_size = sizeof(struct vv_buffer);
	queue->timestamp_flags = V4L2_BUF_FLAG_TIMESTAMP_COPY;
	return vb2_queue_init(queue);
}
