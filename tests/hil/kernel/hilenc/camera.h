/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HILENC_CAMERA_H
#define HILENC_CAMERA_H

int camera_init(void);
void camera_exit(void);

#endif
