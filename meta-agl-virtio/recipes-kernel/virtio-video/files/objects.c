// SPDX-License-Identifier: GPL-2.0
/*
 * Pictures in objects of other virtio devices, such as what virtio-gpu shows. The
 * device finds an object by its UUID, and none of its pages is looked at here:
 * it may have none.
 *
 * Where buffers lie is said when a stream is made, which is before a program has
 * shown any of those for pictures. So it is for whoever loads this driver to say.
 */

#include <linux/module.h>
#include <linux/slab.h>
#include <linux/virtio_dma_buf.h>
#include <media/videobuf2-core.h>

#include "driver.h"

bool vv_objects_wanted;
module_param_named(objects, vv_objects_wanted, bool, 0444);
MODULE_PARM_DESC(objects, "Buffers for pictures are DMABUFs of other virtio devices, and no others");

struct vv_object {
	uuid_t uuid;
};

static void *vv_object_attach(struct vb2_buffer *vb, struct device *dev,
			      struct dma_buf *dbuf, unsigned long size)
{
	struct vv_object *object;
	int err;

	if (!is_virtio_dma_buf(dbuf) || dbuf->size < size)
		return ERR_PTR(-EINVAL);
	object = kzalloc_obj(*object);
	if (!object)
		return ERR_PTR(-ENOMEM);
	err = virtio_dma_buf_get_uuid(dbuf, &object->uuid);
	if (err) {
		kfree(object);
		return ERR_PTR(err);
	}
	return object;
}

static void vv_object_detach(void *object)
{
	kfree(object);
}

/* videobuf2 holds the dma-buf itself, and with it the object. */
static int vv_object_map(void *object)
{
	return 0;
}

static void vv_object_unmap(void *object)
{
}

static void *vv_object_cookie(struct vb2_buffer *vb, void *object)
{
	return object;
}

const struct vb2_mem_ops vv_object_memops = {
	.attach_dmabuf = vv_object_attach,
	.detach_dmabuf = vv_object_detach,
	.map_dmabuf = vv_object_map,
	.unmap_dmabuf = vv_object_unmap,
	.cookie = vv_object_cookie,
};

/* The 16 bytes that the device knows the object of a plane by. */
const u8 *vv_object_name(struct vb2_buffer *vb, u32 plane)
{
	const struct vv_object *object = vb2_plane_cookie(vb, plane);

	return object->uuid.b;
}
