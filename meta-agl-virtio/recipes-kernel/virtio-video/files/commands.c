// SPDX-License-Identifier: GPL-2.0
/*
 * The device's commands, one function each. None believes the answer: what is
 * too short, of another kind or of another stream is an error.
 */

#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <media/videobuf2-dma-sg.h>

#include "driver.h"

static void vv_header_set(struct vv_wire_header *header, u32 type, u32 stream)
{
	header->type = cpu_to_le32(type);
	header->stream_id = cpu_to_le32(stream);
}

/* A command whose answer is only that it was done. */
static int vv_do(struct vv_device *vv, const struct vv_wire_header *out,
		 u32 out_len)
{
	struct vv_wire_header in;
	u32 written;
	int err = vv_exchange(vv, out, out_len, &in, sizeof(in), &written);

	return err ?: vv_response_check(&in, written, sizeof(in),
					VV_RESP_OK_NODATA,
					le32_to_cpu(out->stream_id));
}

/* A command about a session's stream: tells who waits there if that is lost. */
static int vv_do_in_stream(struct vv_session *session,
			   const struct vv_wire_header *out, u32 out_len)
{
	int err = vv_do(session->vv, out, out_len);

	if (err == -ENOLINK) {
		vv_stream_lost(session);
		err = -EIO;
	}
	return err;
}

static __le32 vv_memory_of(struct vv_device *vv, enum vv_side side)
{
	return cpu_to_le32(vv_side_has_objects(vv, side) ?
			   VV_MEM_VIRTIO_OBJECT : VV_MEM_GUEST_PAGES);
}

int vv_stream_create(struct vv_device *vv, u32 id, u32 coded_format)
{
	struct vv_wire_stream_create out = {
		.in_mem_type = vv_memory_of(vv, VV_IN),
		.out_mem_type = vv_memory_of(vv, VV_OUT),
		.coded_format = cpu_to_le32(coded_format),
	};

	vv_header_set(&out.header, VV_CMD_STREAM_CREATE, id);
	strscpy(out.tag, current->comm, sizeof(out.tag));
	return vv_do(vv, &out.header, sizeof(out));
}

int vv_stream_destroy(struct vv_device *vv, u32 id)
{
	struct vv_wire_header out;

	vv_header_set(&out, VV_CMD_STREAM_DESTROY, id);
	return vv_do(vv, &out, sizeof(out));
}

static int vv_of_queue(struct vv_session *session, enum vv_side side, u32 type)
{
	struct vv_wire_of_queue out = {
		.queue_type = cpu_to_le32(vv_wire_side(side)),
	};

	vv_header_set(&out.header, type, session->stream);
	return vv_do_in_stream(session, &out.header, sizeof(out));
}

int vv_detach_all(struct vv_session *session, enum vv_side side)
{
	return vv_of_queue(session, side, VV_CMD_QUEUE_DETACH_RESOURCES);
}

int vv_clear(struct vv_session *session, enum vv_side side)
{
	return vv_of_queue(session, side, VV_CMD_QUEUE_CLEAR);
}

/*
 * The pieces of a plane's memory, as the device addresses them; with no room for
 * them (NULL) only how many there are. 0: it cannot be told.
 */
static u32 vv_plane_pieces(struct vv_device *vv, struct vb2_buffer *vb,
			   u32 plane, struct vv_wire_sg_entry *entries)
{
	struct sg_table *table = vb2_dma_sg_plane_desc(vb, plane);
	/* Pages of another device's buffer may not even be known here. */
	bool physical = vv->physical && vb->memory != VB2_MEMORY_DMABUF;
	u64 left = vb2_plane_size(vb, plane);
	struct scatterlist *sg;
	u32 count = 0;
	u32 i, nents;

	if (!table)
		return 0;
	nents = physical ? table->orig_nents : table->nents;
	for_each_sg(table->sgl, sg, nents, i) {
		u64 addr = physical ? sg_phys(sg) : sg_dma_address(sg);
		u32 length = physical ? sg->length : sg_dma_len(sg);

		length = min_t(u64, length, left);
		if (!length)
			break;
		left -= length;
		if (entries) {
			entries[count].addr = cpu_to_le64(addr);
			entries[count].length = cpu_to_le32(length);
		}
		count++;
	}
	return left ? 0 : count;
}

#ifdef VV_HAS_OBJECTS
static int vv_attach_objects(struct vv_session *session, enum vv_side side,
			     struct vb2_buffer *vb)
{
	struct {
		struct vv_wire_resource_attach head;
		struct vv_wire_object objects[VV_MAX_PLANES];
	} __packed out = {
		.head.queue_type = cpu_to_le32(vv_wire_side(side)),
		.head.resource_id = cpu_to_le32(vb->index + 1),
	};
	u32 plane;

	if (vb->num_planes > VV_MAX_PLANES)
		return -EINVAL;
	vv_header_set(&out.head.header, VV_CMD_RESOURCE_ATTACH,
		      session->stream);
	for (plane = 0; plane < vb->num_planes; plane++)
		memcpy(out.objects[plane].uuid, vv_object_name(vb, plane),
		       sizeof(out.objects[plane].uuid));
	return vv_do_in_stream(session, &out.head.header,
			       offsetof(typeof(out), objects[plane]));
}
#endif

/* Tell the device where a buffer lies. It may have known it by another place. */
int vv_attach(struct vv_session *session, enum vv_side side,
	      struct vb2_buffer *vb)
{
	struct vv_device *vv = session->vv;
	struct vv_wire_resource_attach *out;
	size_t len = sizeof(*out);
	void *end;
	u32 plane;
	int err;

#ifdef VV_HAS_OBJECTS
	if (vv_side_has_objects(vv, side))
		return vv_attach_objects(session, side, vb);
#endif
	for (plane = 0; plane < vb->num_planes; plane++) {
		u32 count = vv_plane_pieces(vv, vb, plane, NULL);

		if (!count || (count > 1 && !vv->non_contig))
			return -EINVAL;
		len += sizeof(struct vv_wire_sg_list) +
		       count * sizeof(struct vv_wire_sg_entry);
	}
	out = kzalloc(len, GFP_KERNEL);
	if (!out)
		return -ENOMEM;
	vv_header_set(&out->header, VV_CMD_RESOURCE_ATTACH, session->stream);
	out->queue_type = cpu_to_le32(vv_wire_side(side));
	out->resource_id = cpu_to_le32(vb->index + 1);
	end = out + 1;
	for (plane = 0; plane < vb->num_planes; plane++) {
		struct vv_wire_sg_list *list = end;
		struct vv_wire_sg_entry *entries = (void *)(list + 1);
		u32 count = vv_plane_pieces(vv, vb, plane, entries);

		list->num_entries = cpu_to_le32(count);
		end = entries + count;
	}
	err = vv_do_in_stream(session, &out->header, len);
	kfree(out);
	return err;
}

int vv_get_params(struct vv_session *session, enum vv_side side,
		  struct vv_wire_params *params)
{
	struct vv_wire_of_queue out = {
		.queue_type = cpu_to_le32(vv_wire_side(side)),
	};
	struct vv_wire_params_message in;
	u32 written;
	int err;

	vv_header_set(&out.header, VV_CMD_GET_PARAMS, session->stream);
	err = vv_exchange(session->vv, &out, sizeof(out), &in, sizeof(in),
			  &written);
	if (err)
		return err;
	err = vv_response_check(&in, written, sizeof(in),
				VV_RESP_OK_GET_PARAMS, session->stream);
	if (err == -ENOLINK) {
		vv_stream_lost(session);
		return -EIO;
	}
	*params = in.params;
	return err;
}

int vv_set_params(struct vv_session *session, enum vv_side side,
		  const struct vv_wire_params *params)
{
	struct vv_wire_params_message out = { .params = *params };

	vv_header_set(&out.header, VV_CMD_SET_PARAMS, session->stream);
	out.params.queue_type = cpu_to_le32(vv_wire_side(side));
	return vv_do_in_stream(session, &out.header, sizeof(out));
}

/* Which values a control may have for a format; not known is no error. */
int vv_query_control(struct vv_device *vv, u32 control, u32 format,
		     struct vv_values *values)
{
	struct vv_wire_query_control out = {
		.control = cpu_to_le32(control),
		.format = cpu_to_le32(format),
	};
	struct {
		struct vv_wire_control_values head;
		__le32 values[VV_MAX_VALUES];
	} in;
	u32 i, num, written;
	int err;

	memset(values, 0, sizeof(*values));
	vv_header_set(&out.header, VV_CMD_QUERY_CONTROL, 0);
	err = vv_exchange(vv, &out, sizeof(out), &in, sizeof(in), &written);
	if (err)
		return err;
	if (vv_response_check(&in, written, sizeof(in.head),
			      VV_RESP_OK_QUERY_CONTROL, 0))
		return 0;
	num = min_t(u32, le32_to_cpu(in.head.num),
		    (written - sizeof(in.head)) / sizeof(__le32));
	values->known = true;
	values->num = num;
	for (i = 0; i < num; i++)
		values->values[i] = le32_to_cpu(in.values[i]);
	return 0;
}

int vv_set_control(struct vv_session *session, u32 control, u32 value)
{
	struct vv_wire_set_control out = {
		.control = cpu_to_le32(control),
		.value = cpu_to_le32(value),
	};

	vv_header_set(&out.header, VV_CMD_SET_CONTROL, session->stream);
	return vv_do_in_stream(session, &out.header, sizeof(out));
}
