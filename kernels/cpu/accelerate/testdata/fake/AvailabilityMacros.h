// The oldest macOS that a build is for, which the test sets.
#define MAC_OS_X_VERSION_MIN_REQUIRED FAKE_OLDEST
