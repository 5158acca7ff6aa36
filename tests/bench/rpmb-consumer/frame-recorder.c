// SPDX-License-Identifier: Apache-2.0
/*
 * Preloaded into mmc-utils: writes each frame that goes through
 * MMC_IOC_MULTI_CMD to the file that FRAMES names, as agl-virtio-rpmb-tool
 * --trace does: a letter for its way and its bytes in hex.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/ioctl.h>
#include <linux/mmc/ioctl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void note(FILE *file, char way, const struct mmc_ioc_cmd *cmd)
{
	const unsigned char *bytes = (const unsigned char *)(unsigned long)cmd->data_ptr;

	for (unsigned int at = 0; at < cmd->blocks * cmd->blksz; at++) {
		if (at % 512 == 0)
			fprintf(file, "%s%c", at ? "\n" : "", way);
		fprintf(file, "%02x", bytes[at]);
	}
	fputc('\n', file);
}

int ioctl(int fd, unsigned long request, ...)
{
	int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
	const char *name = getenv("FRAMES");
	struct mmc_ioc_multi_cmd *sequence;
	va_list arguments;
	void *argument;
	FILE *file;
	int result;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	file = name && request == MMC_IOC_MULTI_CMD ? fopen(name, "a") : NULL;
	if (!file)
		return real(fd, request, argument);
	sequence = argument;
	for (unsigned long at = 0; at < sequence->num_of_cmds; at++)
		if (sequence->cmds[at].write_flag)
			note(file, '>', &sequence->cmds[at]);
	result = real(fd, request, argument);
	for (unsigned long at = 0; result == 0 && at < sequence->num_of_cmds; at++)
		if (!sequence->cmds[at].write_flag)
			note(file, '<', &sequence->cmds[at]);
	fclose(file);
	return result;
}
