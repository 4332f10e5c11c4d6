"""What skmm runs in: settings, device and threads, optional packages, versions."""
