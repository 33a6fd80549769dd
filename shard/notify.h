/* notify.h - tells systemd how the service stands (sd_notify); does nothing when there is no
 * systemd. */
#pragma once

/* state as sd_notify(3) has it: "READY=1", "STOPPING=1", "STATUS=...". */
void notify(const char *state);
