"""The fusion networks of skmm by the name of their strategy."""

from skmm import nets

FUSION_MODULES = {
    "concat": nets.ConcatFusionModule,
    "mean": nets.MeanFusionModule,
    "max": nets.MaxFusionModule,
    "sum": nets.SumFusionModule,
    "gated": nets.GatedFusionModule,
    "cross_gated": nets.CrossGatedFusionModule,
    "film": nets.FilmFusionModule,
    "bilinear": nets.BilinearFusionModule,
    "low_rank": nets.LowRankFusionModule,
    "attention": nets.AttentionFusionModule,
    "cross_attention": nets.CrossAttentionFusionModule,
    "bottleneck": nets.BottleneckFusionModule,
}
