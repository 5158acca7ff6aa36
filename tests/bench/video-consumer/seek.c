// SPDX-License-Identifier: Apache-2.0
/*
 * seek DEVICE FILE FRAMES [WIDTH HEIGHT LEFT TOP]: decode FILE (units behind
 * their lengths, as v4l2-ctl has them) on a stateful H.264 decoder; after FRAMES
 * pictures go back to its beginning, the way V4L2 has it: the queue of the
 * bitstream is stopped and started, the other one not. Writes what is decoded
 * from then on, NV12 without padding. With a size and a place pictures are put
 * there in larger buffers, and nothing else of these may be written.
 *
 * No program of Debian's seeks in a decoder's stream without starting it anew,
 * nor places its pictures.
 */
#include "decoder.h"

/* What buffers have around a picture. */
#define AROUND 0xa5

static void *out_memory[MOST];
static unsigned int out_count, out_size;
static struct v4l2_format picture = { .type = OUT };
static struct v4l2_rect seen;
/* Where pictures are wanted, if somewhere: width and height of buffers, left, top. */
static unsigned int wish[4];
static long frames, decoded, written;

static void seek(void)
{
	int type = IN;

	ask(VIDIOC_STREAMOFF, &type, "STREAMOFF");
	again = 1;
	leaves = 0;
	ask(VIDIOC_STREAMON, &type, "STREAMON");
	feed_all();
}

/* Writes a piece of a picture and leaves nothing of it behind. */
static void write_piece(unsigned char *from, unsigned int bytes)
{
	fwrite(from, 1, bytes, stdout);
	memset(from, AROUND, bytes);
}

static void write_picture(unsigned char *from, unsigned int bytes)
{
	unsigned int stride = picture.fmt.pix_mp.plane_fmt[0].bytesperline;
	unsigned int height = picture.fmt.pix_mp.height, row, i;
	unsigned int width = (seen.width + 1) / 2 * 2;

	for (row = 0; row < seen.height; row++)
		write_piece(from + (seen.top + row) * stride + seen.left, seen.width);
	for (row = 0; row < (seen.height + 1) / 2; row++)
		write_piece(from + (height + seen.top / 2 + row) * stride + seen.left, width);
	for (i = 0; wish[0] && i < bytes; i++) {
		if (from[i] == AROUND)
			continue;
		fprintf(stderr, "byte %u beside the picture was written\n", i);
		exit(1);
	}
}

static void place_pictures(void)
{
	struct v4l2_selection selection = { .type = OUT, .target = V4L2_SEL_TGT_COMPOSE };
	struct v4l2_rect place;

	picture.fmt.pix_mp.width = wish[0];
	picture.fmt.pix_mp.height = wish[1];
	ask(VIDIOC_S_FMT, &picture, "S_FMT");
	ask(VIDIOC_G_SELECTION, &selection, "G_SELECTION");
	selection.r.left = wish[2];
	selection.r.top = wish[3];
	place = selection.r;
	ask(VIDIOC_S_SELECTION, &selection, "S_SELECTION");
	if (picture.fmt.pix_mp.width == wish[0] && picture.fmt.pix_mp.height == wish[1] &&
	    !memcmp(&place, &selection.r, sizeof(place)))
		return;
	fprintf(stderr, "pictures come to %d,%d in %ux%u\n", selection.r.left, selection.r.top,
		picture.fmt.pix_mp.width, picture.fmt.pix_mp.height);
	exit(1);
}

static void set_up_pictures(void)
{
	struct v4l2_selection selection = { .type = OUT, .target = V4L2_SEL_TGT_COMPOSE };
	struct v4l2_control least = { .id = V4L2_CID_MIN_BUFFERS_FOR_CAPTURE };
	struct v4l2_event event;
	unsigned int i;
	int type = OUT;

	ask(VIDIOC_DQEVENT, &event, "DQEVENT");
	if (out_count)
		return;
	ask(VIDIOC_G_FMT, &picture, "G_FMT");
	if (wish[0])
		place_pictures();
	ask(VIDIOC_G_SELECTION, &selection, "G_SELECTION");
	ask(VIDIOC_G_CTRL, &least, "G_CTRL");
	seen = selection.r;
	out_count = allocate(OUT, least.value + 3, out_memory, &out_size);
	for (i = 0; i < out_count; i++) {
		memset(out_memory[i], AROUND, out_size);
		queue(OUT, i, 0);
	}
	ask(VIDIOC_STREAMON, &type, "STREAMON");
}

/* A picture, if there is one; 1 at the end. */
static int take_picture(void)
{
	struct v4l2_plane plane = { 0 };
	struct v4l2_buffer b = { .type = OUT, .memory = V4L2_MEMORY_MMAP, .m.planes = &plane, .length = 1 };

	if (!out_count || ioctl(video, VIDIOC_DQBUF, &b)) {
		if (!out_count || errno == EAGAIN)
			return 0;
		fail("DQBUF");
	}
	if (b.flags & V4L2_BUF_FLAG_ERROR) {
		fprintf(stderr, "a picture with an error\n");
		exit(1);
	}
	if (plane.bytesused) {
		decoded++;
		if (b.timestamp.tv_sec == 2) {
			write_picture(out_memory[b.index], plane.bytesused);
			written++;
		}
	}
	if (b.flags & V4L2_BUF_FLAG_LAST)
		return 1;
	queue(OUT, b.index, 0);
	if (!again && decoded == frames)
		seek();
	return 0;
}

int main(int argc, char **argv)
{
	int i;

	if (argc != 4 && argc != 8)
		return 2;
	frames = atol(argv[3]);
	for (i = 4; i < argc; i++)
		wish[i - 4] = atoi(argv[i]);
	leaves = 1;
	open_stream(argv[1], argv[2]);
	decode(set_up_pictures, take_picture);
	fprintf(stderr, "%ld pictures, %ld of them from the beginning again\n", decoded, written);
	return fflush(stdout) ? 1 : 0;
}
