// SPDX-License-Identifier: GPL-2.0
/*
 * Buffers in memory of the device, for one that takes no pages of the guest:
 * the device shows them in its shared memory region, and programs see them
 * there. Nothing but programs looks into them.
 *
 * A mapping is shared by all that has become of one mmap() by fork() and by
 * partial munmap(), and the device is told when the last of these has gone. Its
 * pages are put in when a program touches them, so that they can be taken out:
 * a reset takes all from the device's region, and a session that begins anew
 * has its buffers at other places. What is not mapped is when it is touched.
 */

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "virtio_media.h"

/*
 * So often may a plane be mapped at once: the region is shared by all programs,
 * and few want more than one mapping of a buffer.
 */
#define MOST_MAPPINGS 16

struct virtio_media_plane {
	struct kref users;		/* vb2 and mappings */
	struct virtio_media_queue *queue;
	unsigned int index, plane;
	bool freed;			/* with region_lock, and vb2's mmap_lock */
};

struct virtio_media_mapping {
	struct kref users;
	struct list_head list;		/* with region_lock, as all that follows */
	struct virtio_media_plane *plane;
	struct file *file;		/* which keeps the plane's queue */
	unsigned long size;
	bool writable;
	bool there;			/* the device has it at this place */
	u64 place;
	unsigned int births;		/* of the session that has asked for it */
	void *kept;			/* what was in it when the guest fell asleep */
};

static void virtio_media_plane_free(struct kref *users)
{
	kfree(container_of(users, struct virtio_media_plane, users));
}

static struct virtio_media *virtio_media_of(const struct virtio_media_mapping *mapping)
{
	return mapping->plane->queue->media;
}

static void virtio_media_mapping_free(struct kref *users)
{
	struct virtio_media_mapping *mapping =
		container_of(users, struct virtio_media_mapping, users);
	struct virtio_media *media = virtio_media_of(mapping);
	struct file *file = mapping->file;
	bool there;

	mutex_lock(&media->region_lock);
	list_del(&mapping->list);
	there = mapping->there;
	mutex_unlock(&media->region_lock);
	if (there)
		virtio_media_unmap_place(media, mapping->place);
	kref_put(&mapping->plane->users, virtio_media_plane_free);
	kvfree(mapping->kept);
	kfree(mapping);
	fput(file);
}

static void virtio_media_mapping_put(struct virtio_media_mapping *mapping)
{
	kref_put(&mapping->users, virtio_media_mapping_free);
}

/*
 * With region_lock held. A picture that a program has not read yet is nowhere
 * but in the device's memory, which it loses with its reset.
 */
static void virtio_media_keep(struct virtio_media *media,
			      struct virtio_media_mapping *mapping)
{
	if (!media->memory)
		return;
	if (!mapping->kept)
		mapping->kept = kvmalloc(mapping->size, GFP_KERNEL);
	if (mapping->kept)
		memcpy(mapping->kept, media->memory + mapping->place, mapping->size);
}

/* With region_lock held: a new buffer, which the device does not have yet. */
static void virtio_media_put_back(struct virtio_media *media,
				  struct virtio_media_mapping *mapping)
{
	if (media->memory)
		memcpy(media->memory + mapping->place, mapping->kept, mapping->size);
}

/* What the device calls a plane when it is asked to map it. */
static int virtio_media_plane_offset(struct virtio_media_session *session,
				     const struct virtio_media_plane *plane,
				     u32 *offset)
{
	u32 type = plane->queue->vb2.type;
	struct {
		struct v4l2_buffer buffer;
		struct v4l2_plane planes[VIDEO_MAX_PLANES];
	} *query;
	struct virtio_media_buffers buffers = {};
	int err;

	query = kzalloc_obj(*query);
	if (!query)
		return -ENOMEM;
	query->buffer.index = plane->index;
	query->buffer.type = type;
	query->buffer.memory = V4L2_MEMORY_MMAP;
	buffers.out = query;
	buffers.out_len = sizeof(query->buffer);
	if (V4L2_TYPE_IS_MULTIPLANAR(type)) {
		query->buffer.length = plane->queue->planes;
		buffers.out_len += plane->queue->planes * sizeof(*query->planes);
	}
	buffers.in = query;
	buffers.in_len = buffers.out_len;
	err = virtio_media_command_once(session, _IOC_NR(VIDIOC_QUERYBUF), &buffers);
	*offset = V4L2_TYPE_IS_MULTIPLANAR(type) ?
		query->planes[plane->plane].m.mem_offset : query->buffer.m.offset;
	kfree(query);
	return err;
}

/* With session->alive and media->placing held. */
static int virtio_media_place_now(struct virtio_media_session *session,
				  struct virtio_media_mapping *mapping)
{
	struct virtio_media *media = session->media;
	unsigned int resets = READ_ONCE(media->resets);
	u64 place, len, before;
	bool was_there;
	u32 offset;
	int err;

	if (media->leaving)
		return -ENODEV;
	err = virtio_media_plane_offset(session, mapping->plane, &offset);
	if (err)
		return err;
	err = virtio_media_map_place(session, offset, mapping->writable, &place, &len);
	if (err)
		return err;
	/* A device may tell the bytes of a plane, and map whole pages. */
	if (!PAGE_ALIGNED(media->region.addr + place) || PAGE_ALIGN(len) < mapping->size) {
		virtio_media_unmap_place(media, place);
		return -EIO;
	}
	mutex_lock(&media->region_lock);
	if (media->resets != resets) {
		mutex_unlock(&media->region_lock);
		return -EIO;
	}
	was_there = mapping->there;
	before = mapping->place;
	mapping->place = place;
	/* The same buffer has what it had. */
	if (mapping->kept && mapping->births != session->births && mapping->writable)
		virtio_media_put_back(media, mapping);
	kvfree(mapping->kept);
	mapping->kept = NULL;
	mapping->births = session->births;
	WRITE_ONCE(mapping->there, true);
	if (was_there)
		unmap_mapping_range(mapping->file->f_mapping, 0, 0, 1);
	mutex_unlock(&media->region_lock);
	if (was_there)
		virtio_media_unmap_place(media, before);
	return 0;
}

/* With session->alive held: has the device map it, wherever it was before. */
static int virtio_media_place(struct virtio_media_session *session,
			      struct virtio_media_mapping *mapping)
{
	struct virtio_media *media = session->media;
	int err;

	down_read(&media->placing);
	err = virtio_media_place_now(session, mapping);
	up_read(&media->placing);
	return err;
}

/* Waits for a session that is being begun anew, and tries again. */
static int virtio_media_place_anew(struct virtio_media_session *session,
				   struct virtio_media_mapping *mapping)
{
	unsigned int tries = 0;
	int err;

	do {
		down_read(&session->alive);
		err = READ_ONCE(mapping->there) ? 0 : virtio_media_place(session, mapping);
		up_read(&session->alive);
	} while (virtio_media_may_return(session, err) && tries++ < 8);
	return err;
}

/* One that is not where the session's buffers are now. */
static struct virtio_media_mapping *
virtio_media_find_stale(struct virtio_media_queue *queue, unsigned int index)
{
	unsigned int births = queue->session->births;
	struct virtio_media_mapping *mapping, *found = NULL;

	mutex_lock(&queue->media->region_lock);
	list_for_each_entry(mapping, &queue->media->mappings, list) {
		if (mapping->plane->queue == queue && !mapping->plane->freed &&
		    mapping->plane->index == index && mapping->births != births &&
		    kref_get_unless_zero(&mapping->users)) {
			found = mapping;
			break;
		}
	}
	mutex_unlock(&queue->media->region_lock);
	return found;
}

int virtio_media_region_refresh(struct virtio_media_queue *queue,
				unsigned int index)
{
	struct virtio_media_mapping *mapping;
	int err = 0;

	while (!err && (mapping = virtio_media_find_stale(queue, index))) {
		err = virtio_media_place(queue->session, mapping);
		virtio_media_mapping_put(mapping);
	}
	return err;
}

/* One that the device has, at this place; from here on nobody looks at it. */
static struct virtio_media_mapping *
virtio_media_take_one(struct virtio_media *media, bool keep, u64 *place)
{
	struct virtio_media_mapping *mapping, *found = NULL;

	mutex_lock(&media->region_lock);
	list_for_each_entry(mapping, &media->mappings, list) {
		if (mapping->there && kref_get_unless_zero(&mapping->users)) {
			WRITE_ONCE(mapping->there, false);
			unmap_mapping_range(mapping->file->f_mapping, 0, 0, 1);
			*place = mapping->place;
			if (keep)
				virtio_media_keep(media, mapping);
			found = mapping;
			break;
		}
	}
	mutex_unlock(&media->region_lock);
	return found;
}

void virtio_media_region_give_back(struct virtio_media *media, bool keep)
{
	struct virtio_media_mapping *mapping;
	int err = 0;
	u64 place;

	/* Who does not answer would only be waited for again. */
	while (!err && (mapping = virtio_media_take_one(media, keep, &place))) {
		err = virtio_media_unmap_place(media, place);
		virtio_media_mapping_put(mapping);
	}
}

void virtio_media_region_leave(struct virtio_media *media)
{
	/* Else a program that touches its pictures without end has them back at once. */
	down_write(&media->placing);
	media->leaving = true;
	up_write(&media->placing);
	virtio_media_region_give_back(media, false);
}

void virtio_media_region_forget(struct virtio_media *media)
{
	struct virtio_media_mapping *mapping;

	mutex_lock(&media->region_lock);
	WRITE_ONCE(media->resets, media->resets + 1);
	list_for_each_entry(mapping, &media->mappings, list) {
		WRITE_ONCE(mapping->there, false);
		unmap_mapping_range(mapping->file->f_mapping, 0, 0, 1);
	}
	mutex_unlock(&media->region_lock);
}

/* Back to where it was before the guest slept; vb2 has its session stay meanwhile. */
static void virtio_media_bring_back(struct virtio_media_mapping *mapping)
{
	struct virtio_media_plane *plane = mapping->plane;

	mutex_lock(&plane->queue->vb2.mmap_lock);
	if (!plane->freed)
		virtio_media_place_anew(plane->queue->session, mapping);
	mutex_unlock(&plane->queue->vb2.mmap_lock);
}

static vm_fault_t virtio_media_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct virtio_media_mapping *mapping = vma->vm_private_data;
	struct virtio_media *media = virtio_media_of(mapping);
	unsigned long at = max(vma->vm_start, vmf->address & PMD_MASK);
	unsigned long end = min(vma->vm_end, (vmf->address & PMD_MASK) + PMD_SIZE);
	vm_fault_t told = VM_FAULT_SIGBUS;
	unsigned long first;

	if (!READ_ONCE(mapping->there))
		virtio_media_bring_back(mapping);
	mutex_lock(&media->region_lock);
	if (!mapping->there)
		goto out_unlock;
	first = PHYS_PFN(media->region.addr + mapping->place) + vma->vm_pgoff;
	told = vmf_insert_pfn(vma, vmf->address & PAGE_MASK,
			      first + PHYS_PFN((vmf->address & PAGE_MASK) - vma->vm_start));
	/* Most programs touch all of a picture: those around it as well. */
	for (; told == VM_FAULT_NOPAGE && at < end; at += PAGE_SIZE)
		told = vmf_insert_pfn(vma, at, first + PHYS_PFN(at - vma->vm_start));
out_unlock:
	mutex_unlock(&media->region_lock);
	return told;
}

static void virtio_media_vma_open(struct vm_area_struct *vma)
{
	struct virtio_media_mapping *mapping = vma->vm_private_data;

	kref_get(&mapping->users);
}

static void virtio_media_vma_close(struct vm_area_struct *vma)
{
	virtio_media_mapping_put(vma->vm_private_data);
}

static const struct vm_operations_struct virtio_media_vm_ops = {
	.open = virtio_media_vma_open,
	.close = virtio_media_vma_close,
	.fault = virtio_media_fault,
};

/* The memory is the device's since its queue was set up: this only names it. */
static void *virtio_media_region_alloc(struct vb2_buffer *vb, struct device *dev,
				       unsigned long size)
{
	struct virtio_media_plane *plane;

	plane = kzalloc_obj(*plane);
	if (!plane)
		return ERR_PTR(-ENOMEM);
	kref_init(&plane->users);
	plane->queue = vb2_get_drv_priv(vb->vb2_queue);
	plane->index = vb->index;
	/* vb2 does not say which, but goes through them in order. */
	while (plane->plane < vb->num_planes && vb->planes[plane->plane].mem_priv)
		plane->plane++;
	return plane;
}

static void virtio_media_region_put(void *priv)
{
	struct virtio_media_plane *plane = priv;
	struct virtio_media *media = plane->queue->media;

	mutex_lock(&media->region_lock);
	plane->freed = true;
	mutex_unlock(&media->region_lock);
	kref_put(&plane->users, virtio_media_plane_free);
}

static unsigned int virtio_media_region_users(void *priv)
{
	struct virtio_media_plane *plane = priv;

	return kref_read(&plane->users);
}

/* vb2 has the buffer, and so its session, stay meanwhile. */
static int virtio_media_region_mmap(void *priv, struct vm_area_struct *vma)
{
	struct virtio_media_plane *plane = priv;
	struct virtio_media_session *session = plane->queue->session;
	struct virtio_media *media = session->media;
	struct virtio_media_mapping *mapping;
	int err;

	if (kref_read(&plane->users) > MOST_MAPPINGS)
		return -ENOMEM;
	mapping = kzalloc_obj(*mapping);
	if (!mapping)
		return -ENOMEM;
	kref_init(&mapping->users);
	kref_get(&plane->users);
	mapping->plane = plane;
	mapping->file = get_file(vma->vm_file);
	mapping->size = vma->vm_end - vma->vm_start;
	mapping->writable = vma->vm_flags & VM_WRITE;
	mutex_lock(&media->region_lock);
	mapping->births = session->births;
	list_add(&mapping->list, &media->mappings);
	mutex_unlock(&media->region_lock);
	err = virtio_media_place_anew(session, mapping);
	if (err) {
		virtio_media_mapping_put(mapping);
		return err;
	}
	virtio_media_change_vma(vma, VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP,
				mapping->writable ? 0 : VM_MAYWRITE);
	vma->vm_private_data = mapping;
	vma->vm_ops = &virtio_media_vm_ops;
	return 0;
}

const struct vb2_mem_ops virtio_media_region_ops = {
	.alloc = virtio_media_region_alloc,
	.put = virtio_media_region_put,
	.num_users = virtio_media_region_users,
	.mmap = virtio_media_region_mmap,
};
