package profile

import "golang.org/x/sys/unix"

// processor returns the name of the CPU where the system tells it.
func processor() string {
	name, _ := unix.Sysctl("machdep.cpu.brand_string")
	return name
}
