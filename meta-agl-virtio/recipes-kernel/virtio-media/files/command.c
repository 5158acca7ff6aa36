// SPDX-License-Identifier: GPL-2.0
/*
 * Commands: sent, waited for, and given up when the device does not answer.
 *
 * A command owns what it sends and receives, so that one which is given up can
 * still come back from the device at any time.
 */

#include <linux/completion.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/vmalloc.h>

#include "virtio_media.h"

/* A service that was killed is back long before. */
#define PATIENCE (60 * HZ)

struct virtio_media_request {
	struct kref users;
	struct completion done;
	int status;			/* of the transport */
	u32 written;
	size_t out_len, in_len;
	void *out, *in;
};

static void virtio_media_request_free(struct kref *users)
{
	struct virtio_media_request *request =
		container_of(users, struct virtio_media_request, users);

	kvfree(request->out);
	kvfree(request->in);
	kfree(request);
}

static void virtio_media_request_put(struct virtio_media_request *request)
{
	kref_put(&request->users, virtio_media_request_free);
}

static struct virtio_media_request *
virtio_media_request_new(size_t out_len, size_t in_len)
{
	struct virtio_media_request *request;

	request = kzalloc_obj(*request);
	if (!request)
		return NULL;
	kref_init(&request->users);
	init_completion(&request->done);
	request->out_len = out_len;
	request->in_len = in_len;
	request->out = kvzalloc(out_len, GFP_KERNEL);
	request->in = in_len ? kvzalloc(in_len, GFP_KERNEL) : NULL;
	if (!request->out || (in_len && !request->in)) {
		virtio_media_request_put(request);
		return NULL;
	}
	return request;
}

/* Memory in as many pieces as it lies in. */
static int virtio_media_map(struct sg_table *table, void *memory, size_t len)
{
	unsigned int count = offset_in_page(memory) + len;
	struct scatterlist *sg;
	int i, err;

	count = is_vmalloc_addr(memory) ? DIV_ROUND_UP(count, PAGE_SIZE) : 1;
	err = sg_alloc_table(table, count, GFP_KERNEL);
	if (err)
		return err;
	for_each_sgtable_sg(table, sg, i) {
		size_t now = len;

		if (is_vmalloc_addr(memory)) {
			now = min_t(size_t, len, PAGE_SIZE - offset_in_page(memory));
			sg_set_page(sg, vmalloc_to_page(memory), now,
				    offset_in_page(memory));
		} else {
			sg_set_buf(sg, memory, now);
		}
		memory += now;
		len -= now;
	}
	return 0;
}

static int virtio_media_submit(struct virtio_media *media,
			       struct virtio_media_request *request,
			       struct scatterlist **sgs, unsigned int pieces)
{
	unsigned long flags;
	int err;

	spin_lock_irqsave(&media->command_lock, flags);
	if (!media->vdev) {
		err = -ENODEV;
	} else if (!media->commandq) {
		err = -EHOSTDOWN;
	} else if (pieces > virtqueue_get_vring_size(media->commandq) &&
		   !virtio_has_feature(media->vdev, VIRTIO_RING_F_INDIRECT_DESC)) {
		/* There will never be room for it. */
		err = -EMSGSIZE;
	} else {
		err = virtqueue_add_sgs(media->commandq, sgs, 1,
					request->in_len ? 1 : 0, request,
					GFP_ATOMIC);
		if (!err) {
			kref_get(&request->users);
			virtqueue_kick(media->commandq);
		}
	}
	spin_unlock_irqrestore(&media->command_lock, flags);
	return err;
}

/* Whether it is worth trying again: room, awake, or gone for good. */
static bool virtio_media_may_submit(struct virtio_media *media,
				    unsigned int pieces)
{
	unsigned long flags;
	bool may;

	spin_lock_irqsave(&media->command_lock, flags);
	may = !media->vdev ||
	      (media->commandq &&
	       media->commandq->num_free >= min(pieces, virtqueue_get_vring_size(media->commandq)));
	spin_unlock_irqrestore(&media->command_lock, flags);
	return may;
}

static int virtio_media_send(struct virtio_media *media,
			     struct virtio_media_request *request)
{
	unsigned long deadline = jiffies + PATIENCE;
	struct scatterlist *sgs[2];
	struct sg_table out, in = {};
	unsigned int pieces;
	long left;
	int err;

	err = virtio_media_map(&out, request->out, request->out_len);
	if (err)
		return err;
	if (request->in_len) {
		err = virtio_media_map(&in, request->in, request->in_len);
		if (err)
			goto out_free;
	}
	sgs[0] = out.sgl;
	sgs[1] = in.sgl;
	pieces = out.nents + in.nents;
	while ((err = virtio_media_submit(media, request, sgs, pieces)) != 0) {
		if (err != -ENOSPC && err != -EHOSTDOWN)
			break;
		left = deadline - jiffies;
		if (left <= 0) {
			err = -ETIMEDOUT;
			break;
		}
		/* Memory may be short where the ring has room: that passes. */
		if (err == -ENOSPC && virtio_media_may_submit(media, pieces))
			schedule_timeout_uninterruptible(1);
		else
			wait_event_timeout(media->changed,
					   virtio_media_may_submit(media, pieces),
					   left);
	}
	sg_free_table(&in);
out_free:
	sg_free_table(&out);
	return err;
}

/*
 * Whoever waits does so uninterruptibly: what a killed program has queued must
 * be taken back from the device before its pages are freed.
 */
static int virtio_media_exchange(struct virtio_media *media,
				 struct virtio_media_request *request)
{
	int err;

	err = virtio_media_send(media, request);
	if (err)
		return err;
	if (!wait_for_completion_timeout(&request->done, PATIENCE)) {
		v4l2_err(&media->v4l2, "the device does not answer\n");
		return -ETIMEDOUT;
	}
	/* What the device has said before is true before its answer is. */
	virtio_media_take_events(media);
	if (request->status)
		return request->status;
	if (request->written < sizeof(struct virtio_media_resp_header))
		return -EIO;
	return 0;
}

static int virtio_media_status(const struct virtio_media_request *request)
{
	const struct virtio_media_resp_header *header = request->in;
	u32 status = le32_to_cpu(header->status);

	return status <= MAX_ERRNO ? -(int)status : -EIO;
}

int virtio_media_open_session(struct virtio_media *media, u32 *id)
{
	struct virtio_media_cmd_header *command;
	struct virtio_media_resp_open *answer;
	struct virtio_media_request *request;
	int err;

	request = virtio_media_request_new(sizeof(*command), sizeof(*answer));
	if (!request)
		return -ENOMEM;
	command = request->out;
	command->cmd = cpu_to_le32(VIRTIO_MEDIA_CMD_OPEN);
	err = virtio_media_exchange(media, request);
	err = err ?: virtio_media_status(request);
	if (!err && request->written < sizeof(*answer))
		err = -EIO;
	answer = request->in;
	*id = le32_to_cpu(answer->session);
	virtio_media_request_put(request);
	return err;
}

/* The device has no answer to it, so nobody waits for one. */
void virtio_media_close_session(struct virtio_media *media, u32 id)
{
	struct virtio_media_cmd_close *command;
	struct virtio_media_request *request;

	request = virtio_media_request_new(sizeof(*command), 0);
	if (!request)
		return;
	command = request->out;
	command->header.cmd = cpu_to_le32(VIRTIO_MEDIA_CMD_CLOSE);
	command->session = cpu_to_le32(id);
	virtio_media_send(media, request);
	virtio_media_request_put(request);
}

int virtio_media_map_place(struct virtio_media_session *session, u32 offset,
			   bool writable, u64 *place, u64 *len)
{
	struct virtio_media_cmd_mmap *command;
	struct virtio_media_resp_mmap *answer;
	struct virtio_media_request *request;
	u64 size = session->media->region.len;
	int err;

	if (READ_ONCE(session->lost))
		return -EIO;
	request = virtio_media_request_new(sizeof(*command), sizeof(*answer));
	if (!request)
		return -ENOMEM;
	command = request->out;
	command->header.cmd = cpu_to_le32(VIRTIO_MEDIA_CMD_MMAP);
	command->session = cpu_to_le32(session->id);
	command->flags = cpu_to_le32(writable ? VIRTIO_MEDIA_MMAP_WRITABLE : 0);
	command->offset = cpu_to_le32(offset);
	err = virtio_media_exchange(session->media, request);
	err = err ?: virtio_media_status(request);
	if (!err && request->written < sizeof(*answer))
		err = -EIO;
	answer = request->in;
	*place = le64_to_cpu(answer->place);
	*len = le64_to_cpu(answer->len);
	if (!err && (*place > size || *len > size - *place))
		err = -EIO;
	virtio_media_request_put(request);
	return err;
}

/* An error says that nobody has answered: what is not there has nothing mapped. */
int virtio_media_unmap_place(struct virtio_media *media, u64 place)
{
	struct virtio_media_cmd_munmap *command;
	struct virtio_media_request *request;
	int err;

	request = virtio_media_request_new(sizeof(*command),
					   sizeof(struct virtio_media_resp_header));
	if (!request)
		return -ENOMEM;
	command = request->out;
	command->header.cmd = cpu_to_le32(VIRTIO_MEDIA_CMD_MUNMAP);
	command->place = cpu_to_le64(place);
	err = virtio_media_exchange(media, request);
	virtio_media_request_put(request);
	return err;
}

int virtio_media_command_once(struct virtio_media_session *session, u32 number,
			      const struct virtio_media_buffers *buffers)
{
	struct virtio_media *media = session->media;
	struct virtio_media_cmd_ioctl *command;
	struct virtio_media_request *request;
	size_t len;
	int err;

	if (READ_ONCE(session->lost))
		return -EIO;
	request = virtio_media_request_new(sizeof(*command) + buffers->out_len,
					   sizeof(struct virtio_media_resp_header) +
					   buffers->in_len);
	if (!request)
		return -ENOMEM;
	command = request->out;
	command->header.cmd = cpu_to_le32(VIRTIO_MEDIA_CMD_IOCTL);
	command->session = cpu_to_le32(session->id);
	command->number = cpu_to_le32(number);
	if (buffers->out_len)
		memcpy(command + 1, buffers->out, buffers->out_len);
	err = virtio_media_exchange(media, request);
	if (err)
		goto out_put;
	err = virtio_media_status(request);
	/* What the device did not write has not changed. */
	len = request->written - sizeof(struct virtio_media_resp_header);
	len = min(len, buffers->in_len);
	if (len)
		memcpy(buffers->in, request->in + sizeof(struct virtio_media_resp_header),
		       len);
	if (!err && len < buffers->in_len)
		err = -EIO;
out_put:
	virtio_media_request_put(request);
	return err;
}

int virtio_media_command(struct virtio_media_session *session, u32 number,
			 const struct virtio_media_buffers *buffers)
{
	unsigned int tries = 0;
	int err;

	do {
		down_read(&session->alive);
		err = virtio_media_command_once(session, number, buffers);
		up_read(&session->alive);
	} while (virtio_media_may_return(session, err) && tries++ < 8);
	return err;
}

static struct virtio_media_buffers virtio_media_payload(unsigned int cmd, void *arg)
{
	struct virtio_media_buffers buffers = {};

	if (_IOC_DIR(cmd) & _IOC_WRITE) {
		buffers.out = arg;
		buffers.out_len = _IOC_SIZE(cmd);
	}
	if (_IOC_DIR(cmd) & _IOC_READ) {
		buffers.in = arg;
		buffers.in_len = _IOC_SIZE(cmd);
	}
	return buffers;
}

int virtio_media_ioctl(struct virtio_media_session *session, unsigned int cmd,
		       void *arg)
{
	struct virtio_media_buffers buffers = virtio_media_payload(cmd, arg);

	return virtio_media_command(session, _IOC_NR(cmd), &buffers);
}

int virtio_media_ioctl_once(struct virtio_media_session *session,
			    unsigned int cmd, void *arg)
{
	struct virtio_media_buffers buffers = virtio_media_payload(cmd, arg);

	return virtio_media_command_once(session, _IOC_NR(cmd), &buffers);
}

static void virtio_media_finish(struct virtio_media_request *request,
				int status, u32 written)
{
	request->status = status;
	request->written = min_t(size_t, written, request->in_len);
	complete(&request->done);
	virtio_media_request_put(request);
}

void virtio_media_command_interrupt(struct virtqueue *vq)
{
	struct virtio_media *media = vq->vdev->priv;
	struct virtio_media_request *request;
	unsigned long flags;
	unsigned int len;

	spin_lock_irqsave(&media->command_lock, flags);
	do {
		virtqueue_disable_cb(vq);
		while ((request = virtqueue_get_buf(vq, &len)))
			virtio_media_finish(request, 0, len);
	} while (!virtqueue_enable_cb(vq));
	spin_unlock_irqrestore(&media->command_lock, flags);
	wake_up_all(&media->changed);
}

/* The device is reset: nobody will answer what it had. */
void virtio_media_abandon_commands(struct virtio_media *media,
				   struct virtqueue *vq)
{
	struct virtio_media_request *request;
	unsigned long flags;

	spin_lock_irqsave(&media->command_lock, flags);
	while (vq && (request = virtqueue_detach_unused_buf(vq)))
		virtio_media_finish(request, -ENODEV, 0);
	spin_unlock_irqrestore(&media->command_lock, flags);
	wake_up_all(&media->changed);
}
