"""Tiny random pipelines of diffusers, about 150 KB each."""

from pathlib import Path

from skmm.testing._toys import write_diffusion as stable_diffusion

__all__ = ["stable_diffusion", "unconditional"]


def unconditional(folder: Path) -> None:
    """Write a pipeline that generates images without a text."""
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )
    DDIMPipeline(unet, DDIMScheduler()).save_pretrained(folder)
