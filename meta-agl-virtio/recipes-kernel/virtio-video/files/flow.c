// SPDX-License-Identifier: GPL-2.0
/*
 * When buffers go to the device, and what comes back: the states of V4L2's
 * stateful codecs, with their drain, seek and change of resolution.
 */

#include "driver.h"

/* What a program gave a buffer with, for what will be made of it. */
static void vv_origin_keep(struct vv_session *session,
			   const struct vb2_v4l2_buffer *vbuf)
{
	struct vv_origin *origin;

	origin = &session->origins[session->next_origin++ % VV_ORIGINS];
	origin->timestamp = vbuf->vb2_buf.timestamp;
	origin->flags = vbuf->flags & (V4L2_BUF_FLAG_TIMECODE |
				       V4L2_BUF_FLAG_TSTAMP_SRC_MASK);
	origin->timecode = vbuf->timecode;
}

static void vv_origin_copy(struct vv_session *session,
			   struct vb2_v4l2_buffer *vbuf)
{
	u32 i;

	for (i = 1; i <= VV_ORIGINS; i++) {
		const struct vv_origin *origin =
			&session->origins[(session->next_origin - i) %
					  VV_ORIGINS];

		if (origin->timestamp != vbuf->vb2_buf.timestamp)
			continue;
		vbuf->flags |= origin->flags;
		vbuf->timecode = origin->timecode;
		return;
	}
}

static void vv_flow_send(struct vv_session *session, struct vv_lane *lane,
			 struct vv_buffer *buffer)
{
	struct vb2_buffer *vb = &buffer->vbuf.vb2_buf;
	struct vv_wire_resource_queue *out = &buffer->out;
	u32 plane;

	memset(out, 0, sizeof(*out));
	memset(&buffer->in, 0, sizeof(buffer->in));
	out->header.type = cpu_to_le32(VV_CMD_RESOURCE_QUEUE);
	out->header.stream_id = cpu_to_le32(session->stream);
	out->queue_type = cpu_to_le32(vv_wire_side(lane->side));
	out->resource_id = cpu_to_le32(vb->index + 1);
	if (lane->side == VV_IN) {
		out->timestamp = cpu_to_le64(vb->timestamp);
		for (plane = 0; plane < vb->num_planes; plane++)
			out->data_sizes[plane] =
				cpu_to_le32(vb2_get_plane_payload(vb, plane));
		vv_origin_keep(session, &buffer->vbuf);
		session->fed = true;
	}
	buffer->request = (struct vv_request) {
		.done = vv_buffer_returned,
		.owner = lane,
		.out = out,
		.out_len = sizeof(*out),
		.in = &buffer->in,
		.in_len = sizeof(buffer->in),
	};
	kref_init(&buffer->request.users);
	lane->in_device++;
	vv_submit(session->vv, &buffer->request);
}

/* An empty buffer that says: nothing more before you go on. */
static void vv_flow_give_last(struct vv_session *session, struct vv_lane *lane,
			      struct vv_buffer *buffer)
{
	struct vb2_buffer *vb = &buffer->vbuf.vb2_buf;
	u32 plane;

	for (plane = 0; plane < vb->num_planes; plane++)
		vb2_set_plane_payload(vb, plane, 0);
	buffer->vbuf.flags |= V4L2_BUF_FLAG_LAST;
	buffer->vbuf.field = V4L2_FIELD_NONE;
	buffer->vbuf.sequence = lane->sequence++;
	session->last_due = false;
	vb2_buffer_done(vb, VB2_BUF_STATE_DONE);
}

static bool vv_flow_may_send(const struct vv_session *session,
			     const struct vv_lane *lane)
{
	if (!lane->streaming || lane->clearing || session->stopped)
		return false;
	if (lane->side == VV_IN)
		return !session->draining;
	return !session->changing && !session->held;
}

/* Called with the device's lock held, after whatever may have set things free. */
void vv_flow_push(struct vv_session *session)
{
	struct vv_lane *out = &session->lanes[VV_OUT];
	struct vv_buffer *buffer;
	enum vv_side side;

	if (!session->stream || session->lost)
		return;
	if (session->last_due && out->streaming && !out->clearing) {
		buffer = list_first_entry_or_null(&out->ready,
						  struct vv_buffer, entry);
		if (buffer) {
			list_del(&buffer->entry);
			vv_flow_give_last(session, out, buffer);
		}
	}
	for (side = VV_IN; side < VV_SIDES; side++) {
		struct vv_lane *lane = &session->lanes[side];

		while (!list_empty(&lane->ready) && !session->lost &&
		       vv_flow_may_send(session, lane)) {
			buffer = list_first_entry(&lane->ready,
						  struct vv_buffer, entry);
			list_del(&buffer->entry);
			vv_flow_send(session, lane, buffer);
		}
	}
}

static void vv_flow_tell_end(struct vv_session *session)
{
	static const struct v4l2_event end = { .type = V4L2_EVENT_EOS };

	session->draining = false;
	session->fed = false;
	session->stopped = true;
	v4l2_event_queue_fh(&session->fh, &end);
}

static void vv_flow_set_flags(struct vv_session *session,
			      struct vb2_v4l2_buffer *vbuf, u32 flags)
{
	vbuf->flags &= ~(V4L2_BUF_FLAG_KEYFRAME | V4L2_BUF_FLAG_PFRAME |
			 V4L2_BUF_FLAG_BFRAME | V4L2_BUF_FLAG_LAST |
			 V4L2_BUF_FLAG_TIMECODE |
			 V4L2_BUF_FLAG_TSTAMP_SRC_MASK);
	if (flags & VV_BUFFER_KEY_FRAME)
		vbuf->flags |= V4L2_BUF_FLAG_KEYFRAME;
	else if (flags & VV_BUFFER_B_FRAME)
		vbuf->flags |= V4L2_BUF_FLAG_BFRAME;
	else if (session->vv->encoder)
		vbuf->flags |= V4L2_BUF_FLAG_PFRAME;
	vv_origin_copy(session, vbuf);
}

/* How much the device says that it has written; false: more than there is. */
static bool vv_flow_take_sizes(struct vv_buffer *buffer, bool *empty)
{
	struct vb2_buffer *vb = &buffer->vbuf.vb2_buf;
	bool fits = true;
	u32 plane;

	*empty = true;
	for (plane = 0; plane < vb->num_planes; plane++) {
		u32 size = le32_to_cpu(buffer->in.data_sizes[plane]);

		if (size)
			*empty = false;
		if (size > vb2_plane_size(vb, plane))
			fits = false;
		vb2_set_plane_payload(vb, plane, fits ? size : 0);
	}
	return fits;
}

static void vv_flow_out_returned(struct vv_session *session,
				 struct vv_lane *lane,
				 struct vv_buffer *buffer, bool failed)
{
	struct vb2_v4l2_buffer *vbuf = &buffer->vbuf;
	u32 flags = failed ? 0 : le32_to_cpu(buffer->in.flags);
	bool end = flags & VV_BUFFER_EOS;
	bool empty;

	if (!vv_flow_take_sizes(buffer, &empty))
		failed = true;
	if (end && session->ends_to_ignore) {
		session->ends_to_ignore--;
		end = false;
		if (empty) {
			list_add(&buffer->entry, &lane->ready);
			return;
		}
	}
	if (empty && !end && !failed && lane->clearing) {
		list_add_tail(&buffer->entry, &lane->ready);
		return;
	}
	vbuf->vb2_buf.timestamp = le64_to_cpu(buffer->in.timestamp);
	vbuf->field = V4L2_FIELD_NONE;
	vbuf->sequence = lane->sequence++;
	vv_flow_set_flags(session, vbuf, flags);
	if (end) {
		vbuf->flags |= V4L2_BUF_FLAG_LAST;
		vv_flow_tell_end(session);
	}
	vb2_buffer_done(&vbuf->vb2_buf,
			failed || (empty && !end) ? VB2_BUF_STATE_ERROR :
						    VB2_BUF_STATE_DONE);
}

/* A buffer comes back, with the device's lock held. */
void vv_buffer_returned(struct vv_request *request)
{
	struct vv_buffer *buffer = container_of(request, struct vv_buffer,
						request);
	struct vb2_buffer *vb = &buffer->vbuf.vb2_buf;
	struct vv_lane *lane = container_of(vb->vb2_queue, struct vv_lane,
					    queue);
	struct vv_session *session = lane->session;
	int err = request->status;

	lane->in_device--;
	if (!err)
		err = vv_response_check(&buffer->in, request->written,
					sizeof(buffer->in),
					VV_RESP_OK_RESOURCE_QUEUE,
					le32_to_cpu(buffer->out.header.stream_id));
	/* It never got there, or there is no such stream (any more). */
	if (err == -EIO || err == -ENODEV || err == -ENOLINK)
		vv_stream_lost_locked(session);
	if (err == -ECANCELED) {
		list_add_tail(&buffer->entry, &lane->ready);
	} else if (lane->side == VV_OUT) {
		vv_flow_out_returned(session, lane, buffer, err);
	} else {
		buffer->vbuf.sequence = lane->sequence++;
		buffer->vbuf.field = V4L2_FIELD_NONE;
		vb2_buffer_done(vb, err ? VB2_BUF_STATE_ERROR :
					  VB2_BUF_STATE_DONE);
	}
	if (!lane->in_device)
		wake_up_all(&lane->idle);
	vv_flow_push(session);
}

/* ---- the queues start and stop ---- */

void vv_flow_begin(struct vv_session *session, enum vv_side side)
{
	struct vv_lane *lane = &session->lanes[side];
	unsigned long flags;

	spin_lock_irqsave(&session->vv->lock, flags);
	lane->streaming = true;
	lane->sequence = 0;
	session->stopped = false;
	if (side == VV_OUT) {
		session->held = false;
		session->last_due = false;
	}
	vv_flow_push(session);
	spin_unlock_irqrestore(&session->vv->lock, flags);
}

static void vv_flow_clear(struct vv_session *session, struct vv_lane *lane,
			  bool even_if_idle)
{
	struct vv_device *vv = session->vv;
	unsigned long flags;
	bool tell;

	spin_lock_irqsave(&vv->lock, flags);
	lane->clearing = true;
	vv_backlog_cancel(vv, lane);
	tell = session->stream && !session->lost &&
	       (lane->in_device || even_if_idle);
	spin_unlock_irqrestore(&vv->lock, flags);
	if (tell)
		vv_clear(session, lane->side);
	if (wait_event_timeout(lane->idle, !READ_ONCE(lane->in_device),
			       msecs_to_jiffies(vv_timeout_ms)))
		return;
	/* Their memory must not go while the device may write to it. */
	vv_device_misbehaves(vv, "keeps buffers that it was to give back");
	vv_device_start_anew(vv);
}

/* Whatever the device has of a side comes back before this returns. */
void vv_flow_end(struct vv_session *session, enum vv_side side)
{
	struct vv_lane *lane = &session->lanes[side];
	struct vv_device *vv = session->vv;
	struct vv_buffer *buffer;
	unsigned long flags;
	bool fed;

	spin_lock_irqsave(&vv->lock, flags);
	lane->streaming = false;
	fed = session->fed;
	session->stopped = false;
	if (side == VV_IN) {
		/* An encoder's drain ends with this, a decoder's is void. */
		if (session->draining && !vv->encoder) {
			session->draining = false;
			session->ends_to_ignore++;
		}
		session->fed = false;
	} else {
		/* A drain goes on over a change, else it ends with this. */
		if (session->draining && !session->held && !session->changing) {
			session->draining = false;
			/* An encoder forgets its drain with this. */
			if (!vv->encoder)
				session->ends_to_ignore++;
		}
		session->held = false;
		session->last_due = false;
	}
	spin_unlock_irqrestore(&vv->lock, flags);

	vv_flow_clear(session, lane, side == VV_IN ? fed : vv->encoder);

	spin_lock_irqsave(&vv->lock, flags);
	while ((buffer = list_first_entry_or_null(&lane->ready,
						  struct vv_buffer, entry))) {
		list_del(&buffer->entry);
		vb2_buffer_done(&buffer->vbuf.vb2_buf, VB2_BUF_STATE_ERROR);
	}
	lane->clearing = false;
	spin_unlock_irqrestore(&vv->lock, flags);
}

/* ---- the end ---- */

static void vv_drain_done(struct vv_request *request)
{
	const struct vv_wire_header *out = request->out;
	u32 stream = le32_to_cpu(out->stream_id);
	struct vv_device *vv = (void *)request->owner;
	struct vv_session *session = xa_load(&vv->sessions, stream);
	int err = request->status;

	if (!err)
		err = vv_response_check(request->in, request->written,
					sizeof(struct vv_wire_header),
					VV_RESP_OK_NODATA, stream);
	if (!err || !session || !session->draining)
		return;
	/* No end will come of it. */
	if (err == -EIO || err == -ENODEV || err == -ENOLINK) {
		vv_stream_lost_locked(session);
		return;
	}
	vv_flow_tell_end(session);
	session->last_due = true;
	vv_flow_push(session);
}

/* The STOP of V4L2: all that was given is to be done, and no more. */
int vv_flow_stop(struct vv_session *session)
{
	struct vv_device *vv = session->vv;
	struct vv_wire_header out = {
		.type = cpu_to_le32(VV_CMD_STREAM_DRAIN),
		.stream_id = cpu_to_le32(session->stream),
	};
	struct vv_request *request;
	unsigned long flags;
	int err = 0;

	request = vv_request_new(&out, sizeof(out),
				 sizeof(struct vv_wire_header));
	if (!request)
		return -ENOMEM;
	request->done = vv_drain_done;
	request->owner = vv;
	spin_lock_irqsave(&vv->lock, flags);
	if (session->lost) {
		err = -EIO;
	} else if (session->draining) {
		err = -EBUSY;
	} else if (session->stopped || !session->lanes[VV_IN].streaming) {
		/* There is nothing to stop. */
	} else if (!session->fed && !session->lanes[VV_OUT].in_device) {
		/* Nor is there for the device, and no buffer to say so with. */
		vv_flow_tell_end(session);
		session->last_due = true;
		vv_flow_push(session);
	} else {
		session->draining = true;
		vv_submit(vv, request);
	}
	spin_unlock_irqrestore(&vv->lock, flags);
	vv_request_put(request);
	return err;
}

/* And its START: go on after an end or a change. */
int vv_flow_start(struct vv_session *session)
{
	struct vv_device *vv = session->vv;
	unsigned long flags;
	int err = 0;

	spin_lock_irqsave(&vv->lock, flags);
	if (session->lost) {
		err = -EIO;
	} else if (session->draining && !session->held) {
		err = -EBUSY;
	} else {
		session->stopped = false;
		session->held = false;
		session->last_due = false;
		vb2_clear_last_buffer_dequeued(&session->lanes[VV_OUT].queue);
		vv_flow_push(session);
	}
	spin_unlock_irqrestore(&vv->lock, flags);
	return err;
}

/* ---- another resolution ---- */

static bool vv_picture_is_same(const struct v4l2_pix_format_mplane *one,
			       const struct v4l2_pix_format_mplane *other)
{
	u32 plane;

	if (one->width != other->width || one->height != other->height ||
	    one->num_planes != other->num_planes)
		return false;
	for (plane = 0; plane < one->num_planes; plane++)
		if (one->plane_fmt[plane].sizeimage !=
		    other->plane_fmt[plane].sizeimage ||
		    one->plane_fmt[plane].bytesperline !=
		    other->plane_fmt[plane].bytesperline)
			return false;
	return true;
}

/*
 * The decoder has found out what it decodes, or that this has changed. It gives
 * no picture before it is asked for the new format. A program that has guessed
 * it right goes on undisturbed.
 */
static void vv_flow_follow(struct vv_session *session)
{
	static const struct v4l2_event change = {
		.type = V4L2_EVENT_SOURCE_CHANGE,
		.u.src_change.changes = V4L2_EVENT_SRC_CH_RESOLUTION,
	};
	struct vv_device *vv = session->vv;
	struct vv_lane *lane = &session->lanes[VV_OUT];
	struct v4l2_pix_format_mplane pix = lane->pix;
	struct v4l2_rect crop = session->crop;
	unsigned long flags;
	bool same;

	vv_flow_clear(session, lane, false);
	if (vv_params_take(session, VV_OUT)) {
		vv_stream_lost(session);
		return;
	}
	same = vv_picture_is_same(&pix, &lane->pix) &&
	       !memcmp(&crop, &session->crop, sizeof(crop)) &&
	       lane->min_buffers <= vb2_get_num_buffers(&lane->queue);
	if (session->min_buffers)
		v4l2_ctrl_s_ctrl(session->min_buffers, lane->min_buffers);

	spin_lock_irqsave(&vv->lock, flags);
	lane->clearing = false;
	session->changing = false;
	if (!lane->streaming || !same)
		v4l2_event_queue_fh(&session->fh, &change);
	if (lane->streaming && !same) {
		session->held = true;
		session->last_due = true;
	}
	vv_flow_push(session);
	spin_unlock_irqrestore(&vv->lock, flags);
}

void vv_flow_change(struct work_struct *work)
{
	struct vv_session *session = container_of(work, struct vv_session,
						  change);

	mutex_lock(&session->lock);
	if (session->stream && !session->lost && session->changing)
		vv_flow_follow(session);
	mutex_unlock(&session->lock);
}
