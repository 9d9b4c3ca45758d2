// Memory of this process as the kernel sees it.
#pragma once

#include <cstdint>

namespace ds {

int64_t resident_bytes();       // now (VmRSS)
int64_t peak_resident_bytes();  // most so far, or since reset_peak_resident() (VmHWM)
// Starts a new peak measurement; false where the kernel does not allow it.
bool reset_peak_resident();
// Gives freed heap memory back to the system, so that resident_bytes() is what is in use.
void trim_heap();

}  // namespace ds
